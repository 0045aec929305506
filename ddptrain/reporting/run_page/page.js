"use strict";
// Curves: the nearest points under the pointer, a part chosen by dragging, all again by a double click. Tables: sorted by a click.
const UNITS = 10000, SVG = "http://www.w3.org/2000/svg";
const element = (name, parent, values) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  return parent.appendChild(made);
};
const shown = v => {
  const digits = w => String(Number(w.toPrecision(4)));
  if (v && Math.abs(v) < 0.001) return Number(v.toExponential(3)).toExponential().replace("e+", "e");
  return Math.abs(v) >= 10000 ? digits(v / 1000) + "k" : digits(v);
};
const ticks = (low, high, count) => {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(k => k * power).find(s => s >= rough * 0.999), out = [];
  for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k++) out.push(k * step);
  return out;
};

for (const figure of document.querySelectorAll("figure.lines")) {
  const [x0, x1, y0, y1] = figure.dataset.range.split(" ").map(Number);
  const outer = figure.querySelector("svg"), plot = outer.querySelector(".plot"), cursor = outer.querySelector(".cursor");
  const axes = outer.querySelector(".axes");
  const [left, top, width, height] = ["x", "y", "width", "height"].map(k => Number(plot.getAttribute(k)));
  const curves = [...plot.querySelectorAll("polyline")].map(line => ({
    name: line.dataset.name, colour: line.getAttribute("class"),
    points: line.getAttribute("points").split(" ").map(p => p.split(",").map(Number)),
  }));
  const toX = u => x0 + (x1 - x0) * u / UNITS, toY = u => y1 - (y1 - y0) * u / UNITS;
  let view = [0, UNITS, 0, UNITS], from = null, drag = null, tip = null, reset = null;

  const draw = () => {  // the view, and its axes
    const [a, b, c, d] = view;
    plot.setAttribute("viewBox", `${a} ${c} ${b - a} ${d - c}`);
    axes.replaceChildren();
    for (const v of ticks(toX(a), toX(b), 5)) {
      const x = left + width * ((v - x0) / (x1 - x0) * UNITS - a) / (b - a);
      element("text", axes, {class: "tick", x, y: top + height + 14, "text-anchor": "middle"}).textContent = shown(v);
    }
    for (const v of ticks(toY(d), toY(c), 5)) {
      const y = top + height * ((y1 - v) / (y1 - y0) * UNITS - c) / (d - c);
      element("line", axes, {x1: left, x2: left + width, y1: y, y2: y});
      element("text", axes, {class: "tick", x: left - 5, y: y + 4, "text-anchor": "end"}).textContent = shown(v);
    }
  };
  const zoom = (a, b) => {
    const heights = curves.flatMap(c => c.points.filter(p => p[0] >= a && p[0] <= b).map(p => p[1]));
    if (b - a < 20 || !heights.length) return;
    const low = Math.min(...heights), high = Math.max(...heights), room = Math.max(0.05 * (high - low), 1);
    view = [a, b, low - room, high + room];
    draw();
    if (!reset) {
      reset = figure.appendChild(document.createElement("button"));
      reset.className = "reset";
      reset.textContent = "show all";
      reset.addEventListener("click", all);
    }
  };
  const all = () => {
    view = [0, UNITS, 0, UNITS];
    draw();
    reset?.remove();
    reset = null;
  };
  const place = event => {  // of the pointer on the x axis, in units
    const box = plot.getBoundingClientRect(), part = outer.getBoundingClientRect();
    const scale = part.width / outer.viewBox.baseVal.width, inside = (event.clientX - part.left) / scale - left;
    return {u: view[0] + (view[1] - view[0]) * Math.min(Math.max(inside / width, 0), 1), scale, part};
  };
  const hide = () => {
    tip?.remove();
    tip = null;
    cursor.setAttribute("visibility", "hidden");
  };
  const hover = event => {
    const {u, scale, part} = place(event), near = new Map();
    for (const c of curves) {
      const p = c.points.reduce((best, q) => Math.abs(q[0] - u) < Math.abs(best[0] - u) ? q : best);
      const old = near.get(c.name);
      if (p[0] >= view[0] && p[0] <= view[1] && !(old && Math.abs(old.p[0] - u) <= Math.abs(p[0] - u))) near.set(c.name, {c, p});
    }
    if (!near.size) return hide();
    const best = [...near.values()].reduce((a, b) => Math.abs(b.p[0] - u) < Math.abs(a.p[0] - u) ? b : a).p[0];
    const at = left + width * (best - view[0]) / (view[1] - view[0]);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.setAttribute("visibility", "visible");
    tip ??= figure.appendChild(document.createElement("div"));
    tip.className = "tip";
    tip.replaceChildren(document.createTextNode(shown(toX(best))));
    const height = (event.clientY - part.top) / scale - top;
    const rows = [...near.values()].sort((a, b) => a.p[1] - b.p[1]);
    const middle = view[2] + (view[3] - view[2]) * height / Number(plot.getAttribute("height"));
    for (const {c, p} of rows.length <= 10 ? rows : rows.sort((a, b) => Math.abs(a.p[1] - middle) - Math.abs(b.p[1] - middle)).slice(0, 6)) {
      const row = tip.appendChild(document.createElement("div"));
      row.className = c.colour;
      row.textContent = `${c.name} ${shown(toY(p[1]))}`;
    }
    const frame = figure.getBoundingClientRect(), x = at * scale;
    tip.style.left = `${x + tip.offsetWidth + 14 > frame.width ? x - tip.offsetWidth - 10 : x + 10}px`;
    tip.style.top = `${part.top - frame.top + 10}px`;
  };
  outer.addEventListener("pointerdown", event => { from = place(event).u; });
  outer.addEventListener("pointermove", event => {
    hover(event);
    if (from === null) return;
    const to = place(event).u;
    drag ??= element("rect", plot, {class: "drag", y: -UNITS, height: 3 * UNITS});
    drag.setAttribute("x", Math.min(from, to));
    drag.setAttribute("width", Math.abs(to - from));
  });
  const end = (event, chosen) => {
    const to = place(event).u, start = from;
    drag?.remove();
    drag = from = null;
    if (chosen && start !== null && Math.abs(to - start) > 0.02 * (view[1] - view[0])) zoom(Math.min(start, to), Math.max(start, to));
  };
  outer.addEventListener("pointerup", event => end(event, true));
  outer.addEventListener("pointercancel", event => end(event, false));
  outer.addEventListener("pointerleave", event => { hide(); end(event, event.buttons > 0); });
  outer.addEventListener("dblclick", all);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending" && (head.classList.contains("n") || head.hasAttribute("aria-sort"));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[i].dataset.v === undefined ? row.cells[i].textContent : Number(row.cells[i].dataset.v);
    const order = (a, b) => {
      const [p, q] = [key(a), key(b)];
      if (typeof p !== typeof q) return typeof p === "number" ? -1 : 1;  // cells without a number come last
      return (typeof p === "number" ? p - q : p.localeCompare(q)) * (down ? -1 : 1);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
