"use strict";
// The leaderboard: filters, the table, the plots, and the address that holds the view.
(() => {
  const { columns, filters, hidden } = window.leaderboard;
  const form = document.getElementById("filters");
  const defaults = JSON.parse(form.dataset.defaults);
  const SORTED = [["pareto", "desc"], ["gmacs", "desc"]];
  const REGIMES = ["off-the-shelf", "calibrated", "fine-tuned"];

  const at = (column, row) => column.values[column.codes[row]];
  const text = (name, row) => at(hidden[name], row);
  const column = Object.fromEntries(columns.map((one) => [one.name, one]));
  const exact = (name, row) => {
    const order = column[name] && at(column[name], row)[2];
    return order ? Number(order) : NaN;
  };
  const html = (string) => {
    const element = document.createElement("span");
    element.textContent = string;
    return element.innerHTML.replaceAll('"', "&quot;");
  };

  // The table. Rows without a number come last, whatever the order.

  const last = (compare) => (a, b) => (a === null) - (b === null) || compare(a, b) || 0;
  DataTable.type("measured", { order: { asc: last((a, b) => a - b), desc: last((a, b) => b - a) } });

  function shown(one, row) {
    const [value, note] = at(one, row);
    const small = note ? ` <small>${html(note)}</small>` : "";
    if (one.name === "pareto") return value ? `<span aria-label="on the Pareto front">${value}</span>` : "";
    if (one.name !== "method") return html(value) + small;
    const [seed, reason] = ["seed", "reason"].map((name) => text(name, row));
    const below = [seed && `seed ${seed}`, text("status", row) !== "ok" && text("status", row), reason].filter(Boolean);
    return html(value) + (below.length ? `<small class="below">${html(below.join(", "))}</small>` : "");
  }

  function definition(one) {
    const numeric = one.values.some(([, , order]) => order);
    return {
      className: numeric ? "number" : `text ${one.name}`,
      data: "row",
      name: one.name,
      title: one.name === "pareto" ? '<span aria-label="Pareto front">★</span>' : html(one.heading),
      type: numeric ? "measured" : "string",
      render: (row, type) => {
        const [value, , order] = at(one, row);
        if (type === "sort" || type === "type") return numeric ? (order ? Number(order) : null) : value;
        return type === "filter" ? `${value} ${one.name === "method" ? text("reason", row) : ""}` : shown(one, row);
      },
    };
  }

  const links = {
    className: "links",
    data: "row",
    orderable: false,
    title: "Source",
    render: (row, type) => {
      const [run, record] = ["run", "record"].map((name) => text(name, row));
      if (type !== "display") return run;
      const name = html(`${at(column.method, row)[0]}, row ${record.match(/(\d+)\.json/)[1]} of ${run}`);
      return `<a href="${record}" aria-label="Record of ${name}">record</a> <a href="runs/${run}.html">run<span class="hidden"> ${html(run)}</span></a>`;
    },
  };

  const table = new DataTable("#rows", {
    autoWidth: false,
    columns: [...columns.map(definition), links],
    data: columns[0].codes.map((_, row) => ({ row })),
    language: { lengthMenu: "_MENU_ rows a page", emptyTable: "no rows", zeroRecords: "No row matches these filters." },
    layout: { topStart: null, topEnd: null, bottomStart: "pageLength", bottomEnd: "paging" },
    lengthMenu: [25, 100, { label: "All", value: -1 }],
    order: SORTED.map(([name, direction]) => ({ name, dir: direction })),
    pageLength: 25,
  });

  // Filters

  const choice = (name) => form.elements[name].value;
  table.search.fixed("filters", (_, { row }) => {
    if (form.elements.front.checked && !at(column.pareto, row)[0]) return false;
    return filters.every((name) => !choice(name) || text(name, row) === choice(name));
  });

  const apply = () => table.search(choice("q")).draw();

  // Settings that are the same in all rows shown stand above the table, not in a column.

  const SETTINGS = ["model", "data", "regime", "schedule", "machine", "timing"].filter((name) => column[name]);

  function leaveOutConstant(rows) {
    const constant = SETTINGS.filter((name) => new Set(rows.map((row) => at(column[name], row)[0])).size === 1);
    for (const name of SETTINGS) table.column(`${name}:name`).visible(!constant.includes(name), false);
    const listed = constant.map((name) => `${column[name].heading} ${at(column[name], rows[0])[0] || "none"}`);
    document.getElementById("constant").textContent = listed.length ? `All of them: ${listed.join("; ")}.` : "";
  }

  // The address

  const sorting = () => table.order().map(([index, direction]) => `${table.column(index).name() || ""}:${direction}`).join(",");
  const usual = SORTED.map((one) => one.join(":")).join(",");
  const fields = ["q", ...filters];
  let writing = false;

  function writeAddress() {
    const given = fields.filter((name) => choice(name) !== (defaults[name] ?? ""));
    const parameters = new URLSearchParams(given.map((name) => [name, choice(name)]));
    if (form.elements.front.checked) parameters.set("front", "1");
    if (sorting() !== usual) parameters.set("sort", sorting());
    history.replaceState(null, "", `#${parameters}`);
  }

  function readAddress() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    writing = true;
    for (const name of fields) form.elements[name].value = parameters.get(name) ?? defaults[name] ?? "";
    form.elements.front.checked = parameters.get("front") === "1";
    const asked = (parameters.get("sort") ?? usual).split(",").map((one) => one.split(":"));
    const known = asked.filter(([name, direction]) => column[name] && ["asc", "desc"].includes(direction));
    table.order(known.map(([name, direction]) => [table.column(`${name}:name`).index(), direction]));
    apply();
    writing = false;
  }

  // Plots

  let machines = []; // of the rows shown: each has its own shape, as far as there are shapes

  function points(rows, cost, front) {
    const complete = rows.filter((row) => !Number.isNaN(exact(cost, row)) && !Number.isNaN(exact("top1", row)));
    return complete.map((row) => {
      const [name, keep] = ["method", "keep"].map((one) => column[one] ? at(column[one], row)[0] : "");
      const about = [name, keep && `keep ${keep}`, text("regime", row), text("schedule", row), text("model", row)];
      return {
        x: exact(cost, row),
        y: exact("top1", row),
        front: front(row),
        colour: name === "none" || name.startsWith("none(") ? REGIMES.length : REGIMES.indexOf(text("regime", row)),
        shape: machines.indexOf(text("machine", row)),
        label: keep && keep !== "1" ? `${name} ${keep}` : name,
        title: `${about.filter(Boolean).join(", ")}\ntop-1 ${at(column.top1, row)[0]} %, ${at(column[cost], row)[0]} ${cost === "gmacs" ? "GMACs" : "× speed"}`,
      };
    });
  }

  function drawPlots(rows) {
    machines = hidden.machine.values.filter((name) => rows.some((row) => text("machine", row) === name));
    const described = (found, cost) =>
      `Top-1 against ${cost}: ${found.length} points, ${found.filter((one) => one.front).length} of them on the Pareto front. The table has the same numbers.`;
    const compute = points(rows, "gmacs", (row) => Boolean(at(column.pareto, row)[0]));
    paretoPlot(document.getElementById("plot-gmacs"), compute, described(compute, "GMACs"));
    const time = points(rows, "speedup", (row) => text("pareto_time", row) === "True");
    paretoPlot(document.getElementById("plot-speedup"), time, described(time, "speedup"));
    legend(rows);
  }

  function legend(rows) {
    const regimes = [...REGIMES.keys()].filter((n) => rows.some((row) => text("regime", row) === REGIMES[n]));
    const parts = regimes.map((n) => `<span class="key colour-${n}">${REGIMES[n]}</span>`);
    parts.push(`<span class="key colour-${REGIMES.length}">plain model, fewer pixels</span>`);
    parts.push("<span>filled: on the Pareto front</span>");
    if (machines.length > 1) {
      const shapes = ["circle", "square", "triangle", "diamond"];
      parts.push(...machines.map((name, n) => `<span>${shapes[n % shapes.length]}: ${html(name)}</span>`));
    }
    document.getElementById("legend").innerHTML = parts.join(" ");
  }

  let drawn = "";

  function update() {
    const rows = table.rows({ search: "applied" }).data().toArray().map(({ row }) => row);
    const ordered = [...rows].sort((a, b) => a - b);
    const front = rows.filter((row) => at(column.pareto, row)[0]).length;
    const counted = `${rows.length} of ${columns[0].codes.length} rows, ${front} on the Pareto front`;
    const status = document.getElementById("count");
    if (status.textContent !== counted) status.textContent = counted;
    if (!writing) writeAddress();
    if (drawn === ordered.join()) return;
    drawn = ordered.join();
    leaveOutConstant(ordered);
    drawPlots(ordered);
  }

  table.on("draw", update);
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    history.replaceState(null, "", "#");
    readAddress();
  });
  addEventListener("hashchange", readAddress);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return;
    width = innerWidth;
    drawn = "";
    update();
  });
  readAddress();
})();
