"use strict";
(() => {
  const root = document.documentElement;
  const config = JSON.parse(document.getElementById("config").textContent);
  const PRINT_WIDTH = 690; // pixels: fits A4 and US letter within their margins
  const [PRINT_HEIGHT, PRINT_FONT] = [0.7, 10]; // factor of the height and pixels of the font: two charts fit a page

  // Charts are drawn when they come near the window, and all of them before printing. plotly.js is large, so it is only
  // started when the first chart is drawn; the text of the page can be read before.
  const charts = [...document.querySelectorAll(".chart")];
  const drawn = new Set();

  function themeColours(chart) {
    const style = getComputedStyle(root);
    const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
    const changes = { "font.color": text };
    for (const axis of Object.keys(chart.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(changes, { [`${axis}.gridcolor`]: line, [`${axis}.tickcolor`]: line });
    }
    return changes;
  }

  function startPlotly() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  function draw(chart) {
    if (drawn.has(chart)) return;
    if (!window.Plotly) startPlotly();
    drawn.add(chart);
    whenNear.unobserve(chart);
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    Plotly.newPlot(chart, figure.data, figure.layout, config);
    Plotly.relayout(chart, themeColours(chart));
  }

  const whenNear = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "500px" },
  );

  function setTheme(dark) {
    root.classList.toggle("dark", dark);
    drawn.forEach((chart) => Plotly.relayout(chart, themeColours(chart)));
  }

  document.getElementById("theme").addEventListener("click", () => setTheme(!root.classList.contains("dark")));
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  preferred.addEventListener("change", () => setTheme(preferred.matches));

  const tables = [];

  function makeSortable(table) {
    const paging = table.tBodies[0].rows.length > 30;
    const layout = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
    if (table.querySelector("th.optional")) {
      layout.topStart = { buttons: [{ extend: "colvis", text: "Columns", className: "columns" }] };
      layout.topEnd = { search: { text: "_INPUT_", placeholder: "filter rows" } };
      layout.bottomStart = paging ? ["info", "pageLength"] : "info";
    }
    if (paging) layout.bottomEnd = "paging";
    const language = { info: "_START_–_END_ of _TOTAL_ rows", infoFiltered: "(of _MAX_)", lengthMenu: "_MENU_ per page" };
    return new DataTable(table, {
      autoWidth: false,
      columnDefs: [{ targets: "optional", visible: false }],
      language,
      layout,
      lengthMenu: [30, 100, { label: "all", value: -1 }],
      order: [],
      pageLength: 30,
      paging,
    });
  }

  for (const table of document.querySelectorAll("table.grid")) tables.push(makeSortable(table));
  charts.forEach((chart) => whenNear.observe(chart));

  // Print the light theme, at the width of the paper, with all rows; afterwards restore the view.
  let undo = [];
  addEventListener("beforeprint", () => {
    if (undo.length) return;
    charts.forEach(draw);
    const dark = root.classList.contains("dark");
    undo.push(() => setTheme(dark));
    setTheme(false);
    for (const part of document.querySelectorAll("details:not([open])")) {
      undo.push(() => (part.open = false));
      part.open = true;
    }
    for (const chart of charts) {
      const { style, layout: { font, height, yaxis2 } } = chart;
      const original = { style: style.cssText, font: font.size };
      undo.push(() => {
        style.cssText = original.style;
        Plotly.relayout(chart, { autosize: true, width: null, height, "font.size": original.font });
      });
      const size = { width: PRINT_WIDTH, height: yaxis2 ? height : PRINT_HEIGHT * height };
      style.cssText = `width: ${size.width}px; height: ${size.height}px`;
      Plotly.relayout(chart, { ...size, "font.size": PRINT_FONT });
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
