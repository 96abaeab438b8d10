// The sections of the page. REPORT is the report that `starc report --json` prints.
"use strict";

const REPORT = JSON.parse(document.getElementById("report").textContent);
const OBJECTIVES = REPORT.objectives;
const MEMBERS = new Map(REPORT.members.map((m) => [m.number, m]));
const BASELINES = new Map(REPORT.baselines.filter((b) => b.number !== null).map((b) => [b.number, b]));
const chosen = { number: null };
const waiting = []; // what to draw anew when another member is chosen

function card(id, title, note) {
  const place = document.getElementById(id);
  const box = add(place, "figure", { class: "card" });
  if (title) add(box, "figcaption", {}, title);
  if (note) add(box, "p", { class: "note" }, note);
  return box;
}

function nameOf(number) {
  const baseline = BASELINES.get(number);
  return baseline ? `${baseline.name} (#${number})` : `#${number}`;
}

function tellMember(m) {
  const values = OBJECTIVES.map((o, i) => `${plain(o.name)} ${shown(m.values[i], o.unit)}`);
  const where = `generation ${m.generation}${m.operation ? ", " + m.operation : ""}`;
  const kind = m.violation > 0 ? ["misses a constraint"] : m.front ? ["on the front"] : [];
  return [nameOf(m.number), ...values, where, ...kind];
}

// How a quantity stands at an axis: "cache bytes, less is better".
function titleOf(o, direction) {
  const unit = o.unit && o.unit !== "bytes" && !plain(o.name).includes(o.unit) ? `, ${o.unit}` : "";
  return plain(o.name) + unit + (direction ? (o.sign > 0 ? " (less is better)" : " (more is better)") : "");
}

function plain(name) {
  return name.replaceAll("_", " ");
}

function better(o, a, b) {
  return o.sign > 0 ? a < b : a > b;
}

// --- fronts --------------------------------------------------------------------------------------

function fronts() {
  const quantities = OBJECTIVES.map((o, i) => ({ ...o, of: (m) => m.values[i] }));
  if (quantities.length === 1) {
    const name = "parameters" in (REPORT.members[0]?.figures || {}) ? "parameters" : null;
    quantities.unshift(name ? { name, unit: "", sign: 1, of: (m) => m.figures.parameters } : { name: "number", unit: "", sign: 1, of: (m) => m.number });
  }
  for (let i = 0; i < quantities.length; i++) {
    for (let j = i + 1; j < quantities.length; j++) front(quantities[j], quantities[i]);
  }
  legend(document.getElementById("fronts-legend"), [
    { name: "front", mark: "round", series: 0 },
    { name: "dominated", mark: "round faint" },
    ...(REPORT.members.some((m) => m.violation > 0) ? [{ name: "misses a constraint", mark: "round hollow" }] : []),
    ...(BASELINES.size ? [{ name: "baseline", mark: "diamond", series: 1 }] : []),
  ]);
}

function front(a, b) {
  const title = `${plain(b.name)} against ${plain(a.name)}`;
  const box = card("fronts", title);
  const chart = frame(box, { label: title });
  const members = REPORT.members.filter((m) => Number.isFinite(a.of(m)) && Number.isFinite(b.of(m)));
  const x = scaleOf(members.map(a.of), chart.box.left, chart.box.right);
  const y = scaleOf(members.map(b.of), chart.box.bottom, chart.box.top);
  axes(chart, x, y, { x: titleOf(a, true), y: titleOf(b, true) }, { x: a.unit, y: b.unit });
  const good = members.filter((m) => !(m.violation > 0)).sort((p, q) => a.sign * (a.of(p) - a.of(q)) || b.sign * (b.of(p) - b.of(q)));
  const stairs = [];
  for (const m of good) if (!stairs.length || better(b, b.of(m), b.of(stairs.at(-1)))) stairs.push(m);
  if (stairs.length > 1) add(chart.svg, "path", { d: line(stairs.map((m) => [x(a.of(m)), y(b.of(m))]), true), class: "line s0 stairs" });
  const order = [...members].sort((p, q) => Number(p.front) - Number(q.front));
  for (const m of order) {
    const state = m.violation > 0 ? "hollow" : m.front ? "s0 strong" : "faint";
    add(chart.svg, "circle", { cx: x(a.of(m)), cy: y(b.of(m)), r: m.front ? 4.5 : 3, class: `dot ${state}` });
  }
  for (const m of members.filter((m) => BASELINES.has(m.number))) {
    const [cx, cy] = [x(a.of(m)), y(b.of(m))];
    add(chart.svg, "path", { d: `M${cx},${cy - 7}l7,7l-7,7l-7,-7Z`, class: "dot s1 strong" });
    const end = cx > chart.box.right - 110;
    add(chart.svg, "text", { x: cx + (end ? -11 : 11), y: cy + 4, "text-anchor": end ? "end" : "start", class: "name" }, BASELINES.get(m.number).name);
  }
  const halo = add(chart.svg, "circle", { r: 9, class: "halo", visibility: "hidden" });
  waiting.push(() => {
    const m = MEMBERS.get(chosen.number);
    const there = m && members.includes(m);
    halo.setAttribute("visibility", there ? "visible" : "hidden");
    if (there) { halo.setAttribute("cx", x(a.of(m))); halo.setAttribute("cy", y(b.of(m))); }
  });
  follow(chart, members.map((m) => ({ x: x(a.of(m)), y: y(b.of(m)), tell: () => tellMember(m), pick: () => choose(m.number, true) })));
}

// --- progress ------------------------------------------------------------------------------------

function progress() {
  const volume = REPORT.hypervolume;
  lineChart(card("progress", "Hypervolume over evaluations", volume.note),
    [{ name: "hypervolume", points: volume.curve, step: true }], { x: "evaluations", y: "hypervolume" }, { zero: true, label: "hypervolume over evaluations" });
  OBJECTIVES.forEach((o, i) => {
    const rows = REPORT.generations;
    const best = rows.map((g) => [g.generation, g.best[i]]);
    const middle = rows.filter((g) => g.median[i] !== null).map((g) => [g.generation, g.median[i]]);
    const band = rows.filter((g) => g.quartiles[i]).map((g) => [g.generation, ...g.quartiles[i]]);
    const box = card("progress", `${plain(o.name)} by generation`);
    lineChart(box, [{ name: "median of the generation", series: 1, points: middle, band }, { name: "best so far", series: 0, points: best, step: true }],
      { x: "generation", y: titleOf(o, false) }, { units: { y: o.unit }, label: `${plain(o.name)} by generation` });
    legend(box, [{ name: "best so far", series: 0, mark: "stroke" }, { name: "median and quartiles of the generation", series: 1, mark: "stroke" }]);
  });
}

function parallels() {
  const names = REPORT.axes;
  const box = card("parallels", "", "One line for each program, the best end of each objective on top. The front is coloured.");
  const chart = frame(box, { width: 1080, height: 330, margin: { left: 70, right: 70, top: 40, bottom: 26 }, label: "parallel coordinates" });
  const { svg, box: area } = chart;
  const values = (m) => names.map((n) => (n.objective === null ? (m.figures || {})[n.name] ?? NaN : m.values[n.objective] ?? NaN));
  const members = REPORT.members.filter((m) => !(m.violation > 0) && values(m).every(Number.isFinite));
  const x = (i) => area.left + ((area.right - area.left) * i) / Math.max(1, names.length - 1);
  const scales = names.map((n, i) => {
    const all = members.map((m) => values(m)[i]);
    return n.sign > 0 ? scaleOf(all, area.top, area.bottom, { tight: true }) : scaleOf(all, area.bottom, area.top, { tight: true });
  });
  const path = (m) => line(values(m).map((v, i) => [x(i), scales[i](v)]));
  const others = members.filter((m) => !m.front);
  const every = Math.ceil(others.length / 500) || 1;
  const drawn = [...others.filter((_, i) => i % every === 0), ...members.filter((m) => m.front)];
  const lines = add(svg, "g", { class: "lines" });
  for (const m of drawn) add(lines, "path", { d: path(m), class: m.front ? "line s0" : "line faint" });
  names.forEach((n, i) => {
    add(svg, "line", { x1: x(i), x2: x(i), y1: area.top, y2: area.bottom, class: "axis" });
    const anchor = i === 0 && names.length > 1 ? "start" : i === names.length - 1 && names.length > 1 ? "end" : "middle";
    const place = anchor === "middle" ? x(i) : anchor === "start" ? 8 : chart.width - 8;
    add(svg, "text", { x: place, y: 16, "text-anchor": anchor, class: "name" }, plain(n.name));
    for (const t of scales[i].ticks) {
      const left = i === names.length - 1;
      add(svg, "line", { x1: x(i) - 3, x2: x(i) + 3, y1: scales[i](t), y2: scales[i](t), class: "axis" });
      add(svg, "text", { x: x(i) + (left ? 7 : -7), y: scales[i](t) + 4, "text-anchor": left ? "start" : "end", class: "tick halo-text" }, shown(t, n.unit));
    }
  });
  const mark = add(svg, "path", { class: "line picked", visibility: "hidden" });
  waiting.push(() => {
    const m = MEMBERS.get(chosen.number);
    const there = m && members.includes(m);
    mark.setAttribute("visibility", there ? "visible" : "hidden");
    if (there) mark.setAttribute("d", path(m));
  });
  const spots = drawn.flatMap((m) => values(m).map((v, i) => ({ x: x(i), y: scales[i](v), tell: () => tellMember(m), pick: () => choose(m.number, true) })));
  follow(chart, spots, 14);
}

// --- a member and where it comes from ------------------------------------------------------------

function programOf(number) {
  const m = MEMBERS.get(number);
  return m && m.program !== null ? REPORT.programs[m.program] : undefined;
}

// Lines of two texts by their longest common subsequence: [mark, line].
function difference(before, after) {
  const a = before.split("\n"), b = after.split("\n");
  if (a.length * b.length > 4e6) return [...a.map((t) => ["-", t]), ...b.map((t) => ["+", t])];
  const best = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push([" ", a[i++]]); j++; }
    else if (i < a.length && (j === b.length || best[i + 1][j] >= best[i][j + 1])) found.push(["-", a[i++]]);
    else found.push(["+", b[j++]]);
  }
  return found;
}

function diffBox(parent, before, after) {
  const rows = difference(before, after);
  const near = rows.map((_, k) => rows.slice(Math.max(0, k - 2), k + 3).some(([mark]) => mark !== " "));
  const box = add(parent, "pre", { class: "diff" });
  let gap = false;
  rows.forEach(([mark, text], k) => {
    if (!near[k]) { gap = true; return; }
    if (gap) add(box, "span", { class: "gap" }, "⋯\n");
    gap = false;
    add(box, "span", { class: mark === "+" ? "new" : mark === "-" ? "old" : "" }, `${mark} ${text}\n`);
  });
  if (!rows.some(([mark]) => mark !== " ")) box.textContent = "the same text";
}

// All ancestors, itself first; a guard against more than a page can show.
function ancestry(number, most = 300) {
  const found = new Map(), queue = [number];
  while (queue.length && found.size < most) {
    const n = queue.shift();
    const m = MEMBERS.get(n);
    if (!m || found.has(n)) continue;
    found.set(n, m);
    queue.push(...m.parents);
  }
  return found;
}

function member() {
  const place = document.getElementById("member");
  clear(place);
  const m = MEMBERS.get(chosen.number);
  if (!m) return add(place, "p", { class: "note" }, "No program was evaluated.");
  const head = add(place, "div", { class: "chosen" });
  add(head, "h3", {}, nameOf(m.number));
  const facts = add(head, "dl");
  OBJECTIVES.forEach((o, i) => fact(facts, plain(o.name), shown(m.values[i], o.unit)));
  for (const [name, value] of Object.entries(m.figures || {})) if (!OBJECTIVES.some((o) => o.name === name)) fact(facts, plain(name), shown(value, REPORT.units[name]));
  fact(facts, "generation", String(m.generation));
  const tree = ancestry(m.number);
  genealogy(add(place, "figure", { class: "card wide" }), tree);
  add(place, "h3", {}, "How it came about");
  add(place, "p", { class: "note" }, "From the program back along first parents; open a step for what it changed.");
  const list = add(place, "div", { class: "steps" });
  let step = m;
  for (let n = 0; step && n < 200; n++) {
    describeStep(list, step, n === 0);
    step = step.parents.length ? MEMBERS.get(step.parents[0]) : undefined;
  }
  const text = programOf(m.number);
  const box = add(place, "details", { class: "program" });
  add(box, "summary", {}, "The program");
  add(box, "pre", {}, text === undefined ? REPORT.left_out : text);
}

function fact(list, name, value) {
  const pair = add(list, "div");
  add(pair, "dt", {}, name);
  add(pair, "dd", {}, value);
}

function describeStep(list, m, open) {
  const box = add(list, "details", open ? { open: "" } : {});
  const origin = m.parents.length ? `from ${m.parents.map((n) => "#" + n).join(" and ")}` : "a first program";
  const summary = add(box, "summary");
  add(summary, "b", {}, nameOf(m.number));
  add(summary, "span", {}, `${m.operation || "given"}, ${origin}`);
  add(summary, "span", { class: "values" }, OBJECTIVES.map((o, i) => `${plain(o.name)} ${shown(m.values[i], o.unit)}`).join("  "));
  const after = programOf(m.number);
  const fill = () => {
    if (box.dataset.filled) return;
    box.dataset.filled = "yes";
    if (after === undefined) return add(box, "p", { class: "note" }, REPORT.left_out);
    if (!m.parents.length) return add(box, "pre", {}, after);
    m.parents.forEach((parent, place) => {
      const before = programOf(parent);
      let inner = box;
      if (m.parents.length > 1) {
        inner = add(box, "details", place ? { class: "against" } : { class: "against", open: "" });
        add(inner, "summary", {}, `against #${parent}`);
      }
      if (before === undefined) add(inner, "p", { class: "note" }, REPORT.left_out);
      else diffBox(inner, before, after);
    });
  };
  if (open) fill();
  box.addEventListener("toggle", fill);
}

function genealogy(box, tree) {
  add(box, "figcaption", {}, "Genealogy");
  const columns = new Map();
  for (const m of tree.values()) {
    if (!columns.has(m.generation)) columns.set(m.generation, []);
    columns.get(m.generation).push(m);
  }
  const generations = [...columns.keys()].sort((a, b) => a - b);
  const tallest = Math.max(...[...columns.values()].map((c) => c.length));
  const chart = frame(box, { width: 1080, height: Math.min(900, 70 + 26 * tallest), label: "genealogy", margin: { left: 40, right: 40, top: 18, bottom: 40 } });
  const { svg, box: area } = chart;
  const x = (g) => (generations.length === 1 ? (area.left + area.right) / 2 : area.left + ((area.right - area.left) * generations.indexOf(g)) / (generations.length - 1));
  const spot = new Map();
  for (const g of generations) {
    const column = columns.get(g).sort((a, b) => a.number - b.number);
    column.forEach((m, i) => spot.set(m.number, [x(g), area.top + ((area.bottom - area.top) * (i + 0.5)) / column.length]));
  }
  const main = new Set();
  for (let m = MEMBERS.get(chosen.number); m; m = MEMBERS.get(m.parents[0])) { if (main.has(m.number)) break; main.add(m.number); }
  for (const m of tree.values()) {
    for (const parent of m.parents) {
      if (!spot.has(parent)) continue;
      const [x1, y1] = spot.get(parent), [x2, y2] = spot.get(m.number);
      const half = (x1 + x2) / 2;
      const bold = main.has(m.number) && m.parents[0] === parent;
      add(svg, "path", { d: x1 === x2 ? `M${x1},${y1}Q${x1 + 30},${(y1 + y2) / 2} ${x2},${y2}` : `M${x1},${y1}C${half},${y1} ${half},${y2} ${x2},${y2}`, class: bold ? "line s0" : "line faint" });
    }
  }
  const spots = [];
  for (const [number, [cx, cy]] of spot) {
    const m = tree.get(number);
    add(svg, "circle", { cx, cy, r: number === chosen.number ? 7 : 5, class: `dot ${main.has(number) ? "s0 strong" : "plain"}` });
    if (tree.size <= 40) add(svg, "text", { x: cx, y: cy - 9, "text-anchor": "middle", class: "tick" }, `#${number}`);
    spots.push({ x: cx, y: cy, tell: () => tellMember(m), pick: () => choose(number, false) });
  }
  const every = Math.ceil(generations.length / 20);
  generations.forEach((g, i) => i % every === 0 && add(svg, "text", { x: x(g), y: chart.height - 22, "text-anchor": "middle", class: "tick" }, String(g)));
  add(svg, "text", { x: (area.left + area.right) / 2, y: chart.height - 6, "text-anchor": "middle", class: "tick" }, "generation");
  follow(chart, spots);
}

function choose(number, scroll) {
  chosen.number = number;
  for (const draw of waiting) draw();
  member();
  for (const row of document.querySelectorAll("tr[data-number]")) row.classList.toggle("picked", Number(row.dataset.number) === number);
  if (scroll) document.getElementById("genealogy").scrollIntoView({ behavior: "smooth" });
}

// --- motifs, failures, genes ---------------------------------------------------------------------

function motifs() {
  const motifs = REPORT.motifs;
  if (!motifs.generations.length) return;
  const { names, counts } = folded(motifs.classes, motifs.counts);
  const box = card("motifs", "Classes of units, share of all units of a generation's programs");
  stackedChart(box, names, motifs.generations.map((g, i) => [g, counts[i]]), { x: "generation", y: "share" }, { share: true, series: names.map((n, i) => (n === "other" ? "faint" : "s" + i)), label: "classes of units" });
  legend(box, names.map((name, i) => (name === "other" ? { name, mark: "faint" } : { name, series: i })));
  for (const { n, rows } of motifs.grams) {
    if (!rows.length) continue;
    const box = card("motifs", `Runs of ${n} units, occurrences per program`);
    const wide = rows.some((r) => r.name.length > 40);
    if (wide) box.classList.add("across");
    heatmap(box, rows.map((r) => r.name), motifs.generations, rows.map((r) => r.rates), { x: "generation", value: "per program" }, { label: `runs of ${n} units`, width: wide ? 1080 : 520 });
  }
  for (const { kind, distances, rates } of motifs.sharing) {
    if (distances.length) heatmap(card("motifs", `Shared ${kind}: distance in units, occurrences per program`), distances.map((d) => `${d} unit${d === 1 ? "" : "s"}`), motifs.generations, rates, { x: "generation", value: "per program" }, { label: `distances of shared ${kind}` });
  }
}

// At most as many classes as there are colours.
function folded(names, counts) {
  if (names.length <= SERIES) return { names, counts };
  return { names: [...names.slice(0, SERIES - 1), "other"], counts: counts.map((row) => [...row.slice(0, SERIES - 1), row.slice(SERIES - 1).reduce((a, b) => a + b, 0)]) };
}

function failures() {
  const names = REPORT.statuses;
  const box = card("failures", "How evaluations ended, by generation");
  const series = names.map((n) => (n === "done" ? "s0" : n === "running" ? "faint" : "s" + (1 + (names.filter((x) => x !== "done" && x !== "running").indexOf(n) % (SERIES - 1)))));
  stackedChart(box, names, REPORT.generations.map((g) => [g.generation, names.map((n) => g.statuses[n] || 0)]), { x: "generation", y: "programs" }, { series, label: "statuses by generation" });
  legend(box, names.map((name, i) => ({ name, mark: series[i] })));
  const rate = (part) => REPORT.generations.map((g) => [g.generation, part(g)]);
  const failed = (g) => {
    const ended = Object.entries(g.statuses).filter(([name]) => !["running", "waiting", "infeasible"].includes(name));
    const all = ended.reduce((sum, [, n]) => sum + n, 0);
    return all ? 1 - (g.statuses.done || 0) / all : NaN;
  };
  const rates = card("failures", "Rates by generation");
  lineChart(rates, [
    { name: "repaired when made", series: 0, points: rate((g) => g.repaired / g.members) },
    { name: "evaluation failed", series: 1, points: rate(failed) },
  ], { x: "generation", y: "share of programs" }, { zero: true, label: "rates of repair and failure" });
  legend(rates, [{ name: "repaired when made", series: 0, mark: "stroke" }, { name: "evaluation failed", series: 1, mark: "stroke" }]);
}

function importance() {
  for (const { objective, genes } of REPORT.importance.objectives) {
    if (!genes.length) continue;
    intervals(card("importance", `On ${plain(objective)}`), genes.map((g) => ({
      name: g.gene, value: g.correlation, low: g.low, high: g.high,
      tell: [g.gene, `correlation ${g.correlation.toFixed(2)} (${g.low.toFixed(2)} to ${g.high.toFixed(2)})`, `permutation importance ${g.permutation.toFixed(3)}`, `in ${g.programs} of ${REPORT.importance.programs} programs`],
    })), { x: "rank correlation; to the right is better" }, { label: `genes and ${objective}` });
  }
}

// --- start ---------------------------------------------------------------------------------------

function start() {
  fronts();
  progress();
  parallels();
  motifs();
  failures();
  importance();
  for (const row of document.querySelectorAll("tr[data-number]")) {
    row.tabIndex = 0;
    row.addEventListener("click", () => choose(Number(row.dataset.number), true));
    row.addEventListener("keydown", (event) => event.key === "Enter" && choose(Number(row.dataset.number), true));
  }
  const wanted = Number((location.hash.match(/^#member-(\d+)$/) || [])[1]);
  choose(MEMBERS.has(wanted) ? wanted : REPORT.chosen, false);
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
  document.documentElement.dataset.drawn = String(document.querySelectorAll("svg.chart").length);
}

start();
