// Charts as SVG, without a library. All text goes in as text nodes: nothing of a program is markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SERIES = 8; // colours in page.css

function add(parent, tag, attributes = {}, text) {
  const svg = parent instanceof SVGElement && parent.tagName !== "foreignObject";
  const node = svg || tag === "svg" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function clear(node) {
  while (node.firstChild) node.firstChild.remove();
}

// --- numbers -------------------------------------------------------------------------------------

function shown(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size >= 1e4) {
    const power = Math.min(6, Math.floor(Math.log10(size) / 3 + 1e-9));
    text = trimmed((value / 10 ** (3 * power)).toPrecision(3)) + " " + ["", "k", "M", "G", "T", "P", "E"][power];
    return unit === "bytes" ? text + "B" : text.trim();
  }
  text = Number.isInteger(value) ? String(value) : size !== 0 && size < 1e-3 ? value.toExponential(2) : trimmed(value.toPrecision(4));
  return unit === "bytes" ? text + " B" : text;
}

function trimmed(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}

// A scale from values to pixels; logarithmic where positive values span more than a factor of 50.
function scaleOf(values, from, to, options = {}) {
  const finite = values.filter(Number.isFinite);
  let low = finite.length ? Math.min(...finite) : 0;
  let high = finite.length ? Math.max(...finite) : 1;
  if (options.zero) low = Math.min(0, low);
  const log = !options.zero && !options.linear && low > 0 && high / low > 50;
  if (low === high) {
    const around = Math.abs(low) * 0.05 || 0.5;
    low -= options.zero && low === 0 ? 0 : around;
    high += around;
  }
  const f = log ? Math.log10 : (v) => v;
  let a = f(low), b = f(high);
  const margin = options.tight ? 0 : (b - a) * 0.06;
  if (!(options.zero && low === 0)) a -= margin;
  b += margin;
  const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  at.back = (pixel) => a + ((pixel - from) / (to - from)) * (b - a);
  at.ticks = log ? logTicks(a, b) : niceTicks(a, b, options.count || 5, options.whole);
  at.low = a;
  at.high = b;
  return at;
}

function niceTicks(a, b, count, whole) {
  const raw = (b - a) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let k = Math.ceil(a / step - 1e-9); k * step <= b + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function logTicks(a, b) {
  const steps = b - a > 3 ? [1] : b - a > 1.2 ? [1, 3] : [1, 2, 5];
  const found = [];
  for (let p = Math.floor(a); p <= Math.ceil(b); p++) {
    for (const s of steps) {
      const v = s * 10 ** p;
      if (Math.log10(v) >= a && Math.log10(v) <= b) found.push(v);
    }
  }
  return found;
}

// --- frames --------------------------------------------------------------------------------------

// A chart's SVG with axes; `x` and `y` are scales made by the caller from the box it returns.
function frame(parent, options) {
  const width = options.width || 520, height = options.height || 320;
  const margin = { left: 76, right: 18, top: 12, bottom: 44, ...options.margin };
  const svg = add(parent, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "chart", "aria-label": options.label });
  const box = { left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
  return { svg, box, width, height };
}

function axes(chart, x, y, titles, units = {}) {
  const { svg, box } = chart;
  const grid = add(svg, "g", { class: "grid" });
  for (const t of y.ticks) {
    add(grid, "line", { x1: box.left, x2: box.right, y1: y(t), y2: y(t) });
    add(grid, "text", { x: box.left - 8, y: y(t) + 4, "text-anchor": "end" }, shown(t, units.y));
  }
  let last = -Infinity;
  for (const t of x.ticks) {
    if (Math.abs(x(t) - last) < 38) continue;
    last = x(t);
    add(grid, "line", { x1: x(t), x2: x(t), y1: box.bottom, y2: box.bottom + 4, class: "mark" });
    add(grid, "text", { x: x(t), y: box.bottom + 18, "text-anchor": "middle" }, shown(t, units.x));
  }
  add(grid, "line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "mark" });
  if (titles.x) add(grid, "text", { x: (box.left + box.right) / 2, y: chart.height - 6, "text-anchor": "middle", class: "title" }, titles.x);
  if (titles.y) {
    const middle = (box.top + box.bottom) / 2;
    add(grid, "text", { x: 14, y: middle, "text-anchor": "middle", class: "title", transform: `rotate(-90 14 ${middle})` }, titles.y);
  }
}

function line(points, step) {
  return points
    .map(([x, y], i) => (i === 0 ? `M${x},${y}` : step ? `H${x}V${y}` : `L${x},${y}`))
    .join("");
}

function legend(parent, entries) {
  const list = add(parent, "div", { class: "legend" });
  for (const { name, mark, series } of entries) {
    const item = add(list, "span");
    add(item, "i", { class: `key ${mark || "square"} ${series === undefined ? "" : "s" + series}` });
    item.append(name);
  }
}

// --- the tooltip ---------------------------------------------------------------------------------

const tip = add(document.body, "div", { id: "tip", hidden: "" });

function showTip(event, lines) {
  clear(tip);
  lines.forEach((text, i) => add(tip, i ? "div" : "strong", {}, text));
  tip.hidden = false;
  const { clientWidth: width } = document.documentElement;
  const left = Math.min(event.clientX + 14, width - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
  tip.style.top = `${event.clientY + 16 + window.scrollY}px`;
}

function hideTip() {
  tip.hidden = true;
}

// What lies nearest to the pointer is told; `spots` have x, y in the chart's units, tell() and pick().
function follow(chart, spots, reach = 24) {
  const ring = add(chart.svg, "circle", { r: 7, class: "ring", visibility: "hidden" });
  const nearest = (event) => {
    const area = chart.svg.getBoundingClientRect();
    const k = chart.width / area.width;
    const px = (event.clientX - area.left) * k, py = (event.clientY - area.top) * k;
    let best = null, distance = reach * reach;
    for (const spot of spots) {
      const d = (spot.x - px) ** 2 + (spot.y - py) ** 2;
      if (d < distance) [best, distance] = [spot, d];
    }
    return best;
  };
  chart.svg.addEventListener("mousemove", (event) => {
    const spot = nearest(event);
    ring.setAttribute("visibility", spot ? "visible" : "hidden");
    chart.svg.style.cursor = spot && spot.pick ? "pointer" : "";
    if (!spot) return hideTip();
    ring.setAttribute("cx", spot.x);
    ring.setAttribute("cy", spot.y);
    showTip(event, spot.tell());
  });
  chart.svg.addEventListener("mouseleave", () => {
    ring.setAttribute("visibility", "hidden");
    hideTip();
  });
  chart.svg.addEventListener("click", (event) => {
    const spot = nearest(event);
    if (spot && spot.pick) spot.pick();
  });
}

function told(node, lines) {
  node.addEventListener("mousemove", (event) => showTip(event, lines));
  node.addEventListener("mouseleave", hideTip);
}

// --- kinds of charts -----------------------------------------------------------------------------

// Lines with an optional band: series = [{name, points: [[x, y]], band: [[x, low, high]], step}].
function lineChart(parent, series, titles, options = {}) {
  const chart = frame(parent, options);
  const { svg, box } = chart;
  const xs = series.flatMap((s) => s.points.map((p) => p[0]));
  const ys = series.flatMap((s) => [...s.points.map((p) => p[1]), ...(s.band || []).flatMap((b) => [b[1], b[2]])]);
  const x = scaleOf(xs, box.left, box.right, { linear: true, tight: true, whole: true, count: 7 });
  const y = scaleOf(ys, box.bottom, box.top, { zero: options.zero, linear: options.linear });
  axes(chart, x, y, titles, options.units);
  const spots = [];
  series.forEach((s, i) => {
    const colour = `s${s.series ?? i}`;
    if (s.band && s.band.length) {
      const upper = s.band.map((b) => [x(b[0]), y(b[2])]);
      const lower = s.band.map((b) => [x(b[0]), y(b[1])]).reverse();
      add(svg, "path", { d: line([...upper, ...lower]) + "Z", class: `band ${colour}` });
    }
    const points = s.points.filter((p) => Number.isFinite(p[1]));
    if (points.length) add(svg, "path", { d: line(points.map((p) => [x(p[0]), y(p[1])]), s.step), class: `line ${colour}` });
    for (const p of points) {
      if (points.length <= 60 && !s.step) add(svg, "circle", { cx: x(p[0]), cy: y(p[1]), r: 2.5, class: `dot ${colour}` });
      spots.push({ x: x(p[0]), y: y(p[1]), tell: () => [s.name, `${titles.x} ${shown(p[0])}`, shown(p[1], (options.units || {}).y)] });
    }
  });
  follow(chart, spots, 40);
  return chart;
}

// Columns stacked to counts or shares: rows = [[x, [n per name]]].
function stackedChart(parent, names, rows, titles, options = {}) {
  const chart = frame(parent, options);
  const { svg, box } = chart;
  const totals = rows.map(([, counts]) => counts.reduce((a, b) => a + b, 0));
  const top = options.share ? 1 : Math.max(1, ...totals);
  const y = scaleOf([0, top], box.bottom, box.top, { zero: true, linear: true, tight: true, whole: !options.share });
  const slot = (box.right - box.left) / rows.length;
  const x = (i) => box.left + slot * (i + 0.5);
  x.ticks = [];
  axes(chart, x, y, titles);
  const every = Math.ceil(rows.length / 12);
  rows.forEach(([place, counts], i) => {
    let sum = 0;
    const total = options.share ? totals[i] || 1 : 1;
    counts.forEach((n, k) => {
      if (!n) return;
      const from = sum / total, to = (sum + n) / total;
      sum += n;
      const bar = add(svg, "rect", {
        x: x(i) - slot * 0.4, width: slot * 0.8, y: y(to), height: Math.max(0.5, y(from) - y(to) - 1),
        class: `bar ${options.series ? options.series[k] : "s" + k}`,
      });
      const share = totals[i] ? ` (${Math.round((100 * n) / totals[i])} %)` : "";
      told(bar, [names[k], `${titles.x} ${place}`, `${n}${share}`]);
    });
    if (i % every === 0) add(svg, "text", { x: x(i), y: box.bottom + 18, "text-anchor": "middle", class: "tick" }, String(place));
  });
  return chart;
}

// A table of shades: cells[row][column] from 0 up.
function heatmap(parent, rows, columns, cells, titles, options = {}) {
  const width = options.width || 520;
  const left = Math.min(width / 2, 24 + 6.2 * Math.max(4, ...rows.map((r) => r.length)));
  const longest = Math.floor((left - 16) / 6);
  const height = 60 + 22 * Math.max(1, rows.length);
  const chart = frame(parent, { ...options, width, height, margin: { left, top: 6 } });
  const { svg, box } = chart;
  const slot = (box.right - box.left) / Math.max(1, columns.length);
  const top = Math.max(1e-9, ...cells.flat());
  const every = Math.ceil(columns.length / 14);
  rows.forEach((name, r) => {
    const y = box.top + 22 * r;
    add(svg, "text", { x: box.left - 8, y: y + 15, "text-anchor": "end", class: "tick" }, name.length > longest ? name.slice(0, longest - 1) + "…" : name);
    columns.forEach((column, c) => {
      const n = cells[r][c];
      const cell = add(svg, "rect", { x: box.left + slot * c + 0.5, y: y + 1, width: Math.max(1, slot - 1), height: 20, class: "cell", "fill-opacity": n ? 0.12 + (0.88 * n) / top : 0.03 });
      told(cell, [name, `${titles.x} ${column}`, `${shown(n)} ${titles.value || ""}`]);
    });
  });
  columns.forEach((column, c) => {
    if (c % every === 0) add(svg, "text", { x: box.left + slot * (c + 0.5), y: height - 26, "text-anchor": "middle", class: "tick" }, String(column));
  });
  add(svg, "text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle", class: "title" }, titles.x);
  return chart;
}

// Horizontal estimates with intervals around zero: rows = [{name, value, low, high, tell}].
function intervals(parent, rows, titles, options = {}) {
  const left = Math.min(260, 24 + 6.2 * Math.max(4, ...rows.map((r) => r.name.length)));
  const height = 52 + 22 * rows.length;
  const chart = frame(parent, { ...options, width: 520, height, margin: { left, top: 4 } });
  const { svg, box } = chart;
  const x = scaleOf([-1, 1], box.left, box.right, { linear: true, tight: true, count: 4 });
  const grid = add(svg, "g", { class: "grid" });
  for (const t of x.ticks) {
    add(grid, "line", { x1: x(t), x2: x(t), y1: box.top, y2: box.bottom, class: t === 0 ? "mark" : "" });
    add(grid, "text", { x: x(t), y: box.bottom + 16, "text-anchor": "middle" }, shown(t));
  }
  add(grid, "text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle", class: "title" }, titles.x);
  rows.forEach((row, i) => {
    const y = box.top + 22 * i + 11;
    add(svg, "text", { x: box.left - 8, y: y + 4, "text-anchor": "end", class: "tick" }, row.name.length > 40 ? row.name.slice(0, 39) + "…" : row.name);
    const clear_ = row.low > 0 || row.high < 0;
    add(svg, "line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, class: `whisker ${clear_ ? "s0" : "faint"}` });
    const dot = add(svg, "circle", { cx: x(row.value), cy: y, r: 4.5, class: `dot ${clear_ ? "s0" : "faint"}` });
    told(dot, row.tell);
  });
  return chart;
}
