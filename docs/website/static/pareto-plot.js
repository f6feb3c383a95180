"use strict";
// Draws points of two numbers as SVG. Points on the Pareto front are filled, and labelled where there is room.
const paretoPlot = (() => {
  const MARGIN = { top: 12, right: 14, bottom: 30, left: 46 };
  const HEIGHT = 320;
  const RADIUS = 4.5;
  const LOG_RATIO = 12; // a wider range is drawn on a logarithmic axis

  const SHAPES = [
    (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`, // circle
    (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`, // square
    (r) => `M0,${-1.3 * r}L${1.2 * r},${r}H${-1.2 * r}z`, // triangle
    (r) => `M0,${-1.4 * r}L${1.4 * r},0L0,${1.4 * r}L${-1.4 * r},0z`, // diamond
  ];

  function element(parent, name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function linearTicks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: Math.max(last - first + 1, 0) }, (_, n) => (first + n) * step);
  }

  function logTicks(low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      ticks.push(...[1, 2, 5].map((factor) => factor * 10 ** power));
    }
    return ticks.filter((tick) => tick >= low && tick <= high);
  }

  // From numbers to pixels, with ticks.
  function scale(numbers, start, end, wanted) {
    let [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const log = low > 0 && high / low > LOG_RATIO;
    const to = log ? Math.log : (number) => number;
    const pad = 0.05 * (to(high) - to(low)) || 0.05 * Math.abs(to(high)) || 1;
    const [from, until] = [to(low) - pad, to(high) + pad];
    const place = (number) => start + ((to(number) - from) / (until - from)) * (end - start);
    const ticks = log ? logTicks(Math.exp(from), Math.exp(until)) : linearTicks(from, until, wanted);
    return { place, ticks };
  }

  const written = (number) => String(Number(number.toPrecision(6)));

  function axes(svg, x, y, width) {
    const [bottom, right] = [HEIGHT - MARGIN.bottom, width - MARGIN.right];
    for (const tick of x.ticks) {
      const at = x.place(tick);
      element(svg, "line", { x1: at, x2: at, y1: MARGIN.top, y2: bottom, class: "grid" });
      element(svg, "text", { x: at, y: bottom + 18, "text-anchor": "middle" }, written(tick));
    }
    for (const tick of y.ticks) {
      const at = y.place(tick);
      element(svg, "line", { x1: MARGIN.left, x2: right, y1: at, y2: at, class: "grid" });
      element(svg, "text", { x: MARGIN.left - 8, y: at + 4, "text-anchor": "end" }, written(tick));
    }
  }

  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  // Labels of the front, best first, each where it covers no other label and no other point of the front.
  function label(svg, points, width) {
    const front = points.filter((one) => one.front).sort((a, b) => b.y - a.y);
    const around = ({ px, py }) => ({ left: px - RADIUS, right: px + RADIUS, top: py - RADIUS, bottom: py + RADIUS });
    const taken = front.map(around);
    for (const { px, py, label: written } of front) {
      const text = element(svg, "text", { class: "label" }, written);
      const size = text.getComputedTextLength();
      const corners = [[px + 8, py - 7], [px - 8 - size, py - 7], [px - size / 2, py - 20], [px - size / 2, py + 6]];
      const boxes = corners.map(([left, top]) => ({ left, right: left + size, top, bottom: top + 14 }));
      const inside = (box) => box.left >= MARGIN.left && box.right <= width && box.top >= 0 && box.bottom <= HEIGHT - MARGIN.bottom;
      const free = boxes.find((box) => inside(box) && !taken.some((other) => overlap(box, other)));
      if (!free) {
        text.remove();
        continue;
      }
      text.setAttribute("x", free.left);
      text.setAttribute("y", free.top + 11);
      taken.push(free);
    }
  }

  // points: {x, y, front, colour, shape, label, title}; colour and shape are numbers from 0.
  return function draw(svg, points, description) {
    svg.replaceChildren();
    svg.setAttribute("aria-label", description);
    const width = svg.clientWidth || 600;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("height", HEIGHT);
    if (!points.length) {
      element(svg, "text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no rows with both numbers");
      return;
    }
    const x = scale(points.map((one) => one.x), MARGIN.left, width - MARGIN.right, width / 90);
    const y = scale(points.map((one) => one.y), HEIGHT - MARGIN.bottom, MARGIN.top, 6);
    axes(svg, x, y, width);
    const placed = points.map((one) => ({ ...one, px: x.place(one.x), py: y.place(one.y) }));
    placed.sort((a, b) => a.front - b.front); // the front above the others
    for (const one of placed) {
      const mark = element(svg, "path", {
        d: SHAPES[one.shape % SHAPES.length](RADIUS),
        transform: `translate(${one.px.toFixed(1)},${one.py.toFixed(1)})`,
        class: `point colour-${one.colour}${one.front ? " front" : ""}`,
      });
      element(mark, "title", {}, one.title);
    }
    label(svg, placed, width);
  };
})();
