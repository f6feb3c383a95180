"use strict";
(() => {
  const root = document.documentElement;
  const config = JSON.parse(document.getElementById("config").textContent);
  const PRINTED = 690; // pixels: as wide as A4 and US letter are within their margins
  const [SHRUNK, SMALL] = [0.7, 10]; // of its height, and pixels of its font, so that a page takes two charts

  // Charts: drawn when they come near the window, all of them before the page is printed. plotly.js is large, and is
  // started only when the first of them is drawn, so that the page can be read before.
  const charts = [...document.querySelectorAll(".chart")];
  const drawn = new Set();

  function colours(chart) {
    const style = getComputedStyle(root);
    const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
    const changes = { "font.color": text };
    for (const axis of Object.keys(chart.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(changes, { [`${axis}.gridcolor`]: line, [`${axis}.tickcolor`]: line });
    }
    return changes;
  }

  function start() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  function draw(chart) {
    if (drawn.has(chart)) return;
    if (!window.Plotly) start();
    drawn.add(chart);
    near.unobserve(chart);
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    Plotly.newPlot(chart, figure.data, figure.layout, config);
    Plotly.relayout(chart, colours(chart));
  }

  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "500px" },
  );

  function paint(dark) {
    root.classList.toggle("dark", dark);
    drawn.forEach((chart) => Plotly.relayout(chart, colours(chart)));
  }

  document.getElementById("theme").addEventListener("click", () => paint(!root.classList.contains("dark")));
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  preferred.addEventListener("change", () => paint(preferred.matches));

  // Tables: DataTables comes as a module, and a module without a network is a data URL.
  const tables = [];

  function arrange(table, DataTable) {
    const paging = table.tBodies[0].rows.length > 30;
    const layout = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
    if (table.querySelector("th.more")) {
      layout.topStart = { buttons: [{ extend: "colvis", text: "Columns", className: "columns" }] };
      layout.topEnd = { search: { text: "_INPUT_", placeholder: "filter rows" } };
      layout.bottomStart = paging ? ["info", "pageLength"] : "info";
    }
    if (paging) layout.bottomEnd = "paging";
    const language = { info: "_START_–_END_ of _TOTAL_ rows", infoFiltered: "(of _MAX_)", lengthMenu: "_MENU_ a page" };
    return new DataTable(table, {
      autoWidth: false,
      columnDefs: [{ targets: "more", visible: false }],
      language,
      layout,
      lengthMenu: [30, 100, { label: "all", value: -1 }],
      order: [],
      pageLength: 30,
      paging,
    });
  }

  import(`data:text/javascript;base64,${document.getElementById("datatables").textContent}`)
    .then((module) => {
      for (const table of document.querySelectorAll("table.grid")) tables.push(arrange(table, module.default));
    })
    .finally(() => charts.forEach((chart) => near.observe(chart)));

  // Print: black on white, as wide as the paper, every row; afterwards all is as it was.
  let undo = [];
  addEventListener("beforeprint", () => {
    if (undo.length) return;
    charts.forEach(draw);
    const dark = root.classList.contains("dark");
    undo.push(() => paint(dark));
    paint(false);
    for (const part of document.querySelectorAll("details:not([open])")) {
      undo.push(() => (part.open = false));
      part.open = true;
    }
    for (const chart of charts) {
      const { style, layout: { font, height, yaxis2 } } = chart;
      const usual = { style: style.cssText, font: font.size };
      undo.push(() => {
        style.cssText = usual.style;
        Plotly.relayout(chart, { autosize: true, width: null, height, "font.size": usual.font });
      });
      const size = { width: PRINTED, height: yaxis2 ? height : SHRUNK * height };
      style.cssText = `width: ${size.width}px; height: ${size.height}px`;
      Plotly.relayout(chart, { ...size, "font.size": SMALL });
    }
    for (const table of tables) {
      const length = table.page.len();
      undo.push(() => table.page.len(length).draw(false));
      table.page.len(-1).draw(false);
    }
  });
  addEventListener("afterprint", () => {
    undo.forEach((step) => step());
    undo = [];
  });
})();
