"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const KINDS = { strategy: "strategies", learned: "learned", reference: "references", random: "random" };
const COLUMNS = [
  { key: "rank", label: "#",
    title: "rank by the mean; references and who was not played everywhere have none", up: true },
  { key: "name", label: "method", up: true },
  { key: "kind", label: "kind", up: true },
  { key: "score", label: "score", title: "0 is random plans, 1 the best strategy that people wrote" },
  { key: "scenarios", label: "scenarios", title: "in how many scenarios the method was played" },
  { key: "reward", label: "reward", title: "mean reward of a query" },
  { key: "throughput", label: "orders per step", title: "orders delivered per step by all agents together" },
  { key: "success", label: "success", title: "share of queries solved; in warehouses, of useful steps" },
  { key: "cost", label: "cost", title: "mean cost of a query", up: true },
  { key: "active_agents", label: "agents", title: "agents on the team", up: true },
  { key: "service", label: "service", title: "steps from an order to its delivery", up: true },
  { key: "runs", label: "runs", title: "training runs" },
];
const MOST_ON_PHONES = 15;
const PHONE = matchMedia("(max-width: 720px)");

const state = { view: DATA.views[0], key: "rank", up: true, kinds: new Set(Object.keys(KINDS)), text: "",
  open: new Set(), all: false, a: 0, b: 1 };

// --- small tools

const find = (id) => document.getElementById(id);

/** Make an element; text stays text, whatever it says. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function number(value, digits = 3) {
  return value.toFixed(digits).replace("-", "−");
}

/** Show a mean with three digits, with fewer where it is large. */
function short(value) {
  return number(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3);
}

const signed = (value) => (value > 0 ? "+" : "") + short(value);
const whole = (value) => value.toLocaleString("en");
const interval = ([, low, high]) => `[${short(low)}, ${short(high)}]`;
const isOverall = (view) => view.id === "overall";
const leading = (view) => (view.scores ? "score" : view.metric);
const several = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** Return a row's estimate `[mean, low, high]` in a column, if it has one. */
function estimate(row, key) {
  return (key === "score" ? row.score : row.metrics[key]) || null;
}

function value(row, key) {
  if (key === "scenarios") return Object.keys(row.scores || {}).length;
  if (["rank", "name", "kind", "runs"].includes(key)) return row[key];
  const found = estimate(row, key);
  return found && found[0];
}

// --- what is shown

function columns() {
  return COLUMNS.filter(({ key }) => {
    if (["rank", "name", "kind", "runs"].includes(key)) return true;
    if (key === "scenarios") return isOverall(state.view);
    return state.view.rows.some((row) => estimate(row, key));
  });
}

function visible() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = state.view.rows.filter((row) => {
    const said = `${row.name} ${row.by} ${row.kind} ${row.about || ""}`.toLowerCase();
    return state.kinds.has(row.kind) && words.every((word) => said.includes(word))
      && (!state.kinds.has("verified") || row.status === "verified")
      && (!state.kinds.has("everywhere") || value(row, "scenarios") === state.view.scenarios.length);
  });
  return rows.sort(ordered);
}

/** Compare two rows by the column that is sorted by; what has no value there comes last. */
function ordered(one, other) {
  const places = state.view.rows.indexOf(one) - state.view.rows.indexOf(other);
  if (state.key === "rank") return state.up ? places : -places;
  const [x, y] = [value(one, state.key), value(other, state.key)];
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  return (state.up ? order : -order) || places;
}

function sortBy(key) {
  const column = COLUMNS.find((one) => one.key === key);
  state.up = state.key === key ? !state.up : Boolean(column.up);
  state.key = key;
  render();
}

// --- controls

function viewName(view) {
  if (isOverall(view)) return `Overall: ${several(view.scenarios.length, "scenario")} with scores`;
  const { num_agents, coordination_interval, executor, files } = view.setting;
  const made = Object.entries(files).map(([name, digest]) => `, ${name} ${digest.slice(0, 8)}`).join("");
  return `${num_agents} agents, a plan every ${coordination_interval} steps, ${executor}${made}`;
}

/** Name a view by its scenario, and by what tells it from the scenario's other settings. */
function optionName(view) {
  if (isOverall(view)) return viewName(view);
  const others = DATA.views.filter((other) => other !== view && other.scenario === view.scenario);
  const parts = [["executor", (x) => x], ["num_agents", (x) => `${x} agents`],
    ["coordination_interval", (x) => `every ${x} steps`], ["params", (x) => x.slice(0, 6)]];
  const telling = parts.filter(([key]) => others.some((other) => other.setting[key] !== view.setting[key]));
  return [view.scenario, ...telling.map(([key, say]) => say(view.setting[key]))].join(" · ");
}

function fillViews() {
  find("view").append(...DATA.views.map((view) =>
    make("option", { value: view.id }, `${optionName(view)} (${view.rows.length})`)));
}

function show(view) {
  Object.assign(state, { view, key: "rank", up: true, all: false, a: 0, b: 1 });
  state.open.clear();
  const best = view.rows.findIndex((row) => row.rank);
  const strategy = view.rows.findIndex((row, at) => row.kind === "strategy" && at !== best);
  state.a = Math.max(best, 0);
  state.b = strategy >= 0 ? strategy : view.rows.findIndex((_, at) => at !== state.a);
  find("view").value = view.id;
  find("order").replaceChildren(...columns().map(({ key, label }) =>
    make("option", { value: key }, key === "rank" ? "rank" : label)));
  const options = () => view.rows.map((row, at) => make("option", { value: at }, `${row.rank || "–"} · ${row.name}`));
  find("a").replaceChildren(...options());
  find("b").replaceChildren(...options());
  state.kinds.delete("everywhere");
  render();
}

function renderChips() {
  const rows = state.view.rows;
  const count = (kind) => rows.filter((row) => row.kind === kind).length;
  const chips = Object.entries(KINDS).filter(([kind]) => count(kind)).map(([kind, label]) =>
    chip(kind, [shapeOf(kind), label, make("small", {}, count(kind))]));
  const verified = rows.filter((row) => row.status === "verified").length;
  if (verified) chips.push(chip("verified", [mark(), "verified only", make("small", {}, verified)]));
  if (isOverall(state.view)) {
    const everywhere = rows.filter((row) => value(row, "scenarios") === state.view.scenarios.length).length;
    chips.push(chip("everywhere", ["in all scenarios", make("small", {}, everywhere)]));
  }
  const focused = document.activeElement && document.activeElement.dataset.chip;
  find("chips").replaceChildren(...chips);
  if (focused) find("chips").querySelector(`[data-chip="${focused}"]`)?.focus();
}

function chip(kind, children) {
  const flip = () => {
    if (!state.kinds.delete(kind)) state.kinds.add(kind);
    render();
  };
  const pressed = String(state.kinds.has(kind));
  return make("button", { type: "button", "aria-pressed": pressed, "data-chip": kind, onclick: flip }, ...children);
}

const mark = () => make("span", { class: "mark", title: "verified: played again by the maintainers" }, "✓");

/** Return the outline of a kind's sign, as wide as 2 × `size`: kinds differ by shape as well as by colour. */
function outline(kind, size) {
  const s = size;
  if (kind === "strategy") return `M${-s * 0.85} ${-s * 0.85}H${s * 0.85}V${s * 0.85}H${-s * 0.85}Z`;
  if (kind === "reference") return `M0 ${-s * 1.2}L${s * 1.2} 0L0 ${s * 1.2}L${-s * 1.2} 0Z`;
  if (kind === "random") return `M0 ${-s * 1.1}L${s * 1.1} ${s * 0.9}H${-s * 1.1}Z`;
  return `M${-s} 0A${s} ${s} 0 1 1 ${s} 0A${s} ${s} 0 1 1 ${-s} 0Z`;
}

function shapeOf(kind) {
  return draw("svg", { class: `shape ${kind}`, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    draw("path", { d: outline(kind, 4.6) }));
}

// --- the table

function renderTable() {
  const shown = columns();
  const rows = visible();
  const limit = PHONE.matches && !state.all ? MOST_ON_PHONES : rows.length;
  renderHead(shown);
  const range = extent(state.view);
  const parts = rows.slice(0, limit).flatMap((row) => tableRow(row, shown, range));
  const focused = document.activeElement && document.activeElement.dataset.row;
  find("table").tBodies[0].replaceChildren(...parts);
  if (focused) find("table").querySelector(`[data-row="${focused}"]`)?.focus();
  find("none").hidden = rows.length > 0;
  find("more").hidden = limit >= rows.length;
  find("more").textContent = `Show all ${rows.length}`;
  const total = state.view.rows.length;
  find("count").textContent = rows.length === total ? several(total, "method") : `${rows.length} of ${total} methods`;
  find("order").value = state.key;
  find("turn").textContent = state.up ? "↑" : "↓";
  find("turn").setAttribute("aria-label", state.up ? "ascending" : "descending");
}

function renderHead(shown) {
  const focused = document.activeElement && document.activeElement.dataset.sort;
  const cells = shown.map(({ key, label, title }) => make("th", { scope: "col", class: classOf(key),
    "aria-sort": state.key === key && (state.up ? "ascending" : "descending") },
    make("button", { type: "button", title, "data-sort": key, onclick: () => sortBy(key) }, label)));
  find("table").tHead.replaceChildren(make("tr", {}, ...cells));
  if (focused) find("table").tHead.querySelector(`[data-sort="${focused}"]`)?.focus();
}

const classOf = (key) => (key === leading(state.view) ? "c-lead" : `c-${key}`);

/** Return what bars are of, their range, and where random plans and the best strategy stand.
 *
 * In one setting bars are of rewards, which scores are a scale of, so that those without a score have one, too. */
function extent(view) {
  const key = view.metric || "score";
  const marks = view.metric ? view.anchors || [0] : [0, 1];
  const known = view.rows.map((row) => estimate(row, key)).filter(Boolean);
  const high = Math.max(...marks, ...known.map((one) => one[2]));
  const least = marks[0] - 0.12 * (high - marks[0]);
  const low = Math.max(Math.min(...marks, ...known.map((one) => one[1])), least);
  return { key, low, high: high > low ? high : low + 1, marks };
}

function tableRow(row, shown, range) {
  const at = state.view.rows.indexOf(row);
  const open = state.open.has(at);
  const cells = shown.map((column) => cell(row, at, column, range));
  const line = make("tr", { class: `row ${row.kind}${open ? " open" : ""}`, "data-at": at,
    onclick: (event) => { if (!event.target.closest("a, button")) toggle(at); },
    onmouseenter: () => light(at, true), onmouseleave: () => light(at, false) }, ...cells);
  if (!open) return [line];
  const detail = make("td", { colspan: shown.length }, ...details(row, at));
  return [line, make("tr", { class: `detail ${row.kind}`, id: `detail-${at}` }, detail)];
}

function toggle(at) {
  if (!state.open.delete(at)) state.open.add(at);
  renderTable();
}

function cell(row, at, { key, label }, range) {
  const attributes = { class: classOf(key) };
  if (key === "rank") return make("td", attributes, row.rank === null ? "–" : String(row.rank));
  if (key === "name") return make("td", attributes, ...nameParts(row, at));
  if (key === "kind") {
    const sign = [shapeOf(row.kind), make("span", {}, row.kind)];
    return make("td", attributes, make("span", { class: "kind", title: row.kind }, ...sign));
  }
  attributes["data-label"] = label;
  if (key === "scenarios") return make("td", attributes, `${value(row, key)} of ${state.view.scenarios.length}`);
  if (key === "runs") return make("td", attributes, String(row.runs));
  const found = estimate(row, key);
  if (key === leading(state.view)) return make("td", { class: "c-lead" }, lead(row, found, range));
  if (!found) return make("td", { class: attributes.class });
  const mean = key === "active_agents" ? number(found[0], 1) : short(found[0]);
  return make("td", { ...attributes, title: interval(found) }, mean);
}

function nameParts(row, at) {
  const button = make("button", { type: "button", "data-row": at, "aria-expanded": String(state.open.has(at)),
    "aria-controls": state.open.has(at) && `detail-${at}`, onclick: () => toggle(at) }, row.name);
  const parts = [button];
  if (row.status === "verified") parts.push(" ", mark());
  if (row.by !== "jaxmas") parts.push(" ", make("span", { class: "by" }, `by ${row.by}`));
  if (row.training && row.training.trains_executors) {
    const title = "trains its executors as well: it has no score";
    parts.push(" ", make("span", { class: "tag", title }, "own executors"));
  }
  return parts;
}

function lead(row, found, range) {
  const digits = found ? (state.view.scores ? number(found[0], 2) : short(found[0])) : "–";
  const drawn = estimate(row, range.key);
  const title = found ? interval(found) : "no score: anchors do not hold for executors that were trained";
  return make("div", { class: "lead", title }, make("b", {}, digits), drawn && bar(drawn, range));
}

/** Draw a mean with its interval on the scale that all rows share. */
function bar([mean, from, to], { low, high, marks }) {
  const place = (x) => 100 * Math.min(Math.max((x - low) / (high - low), 0), 1);
  const lines = marks.map((x, at) => make("i", { class: at ? "one" : "zero", style: { left: `${place(x)}%` } }));
  const span = { left: `${place(from)}%`, width: `${place(to) - place(from)}%` };
  const signs = mean < low ? [make("u", { title: "beyond the scale" }, "◂")]
    : [make("span", { style: span }), make("em", { style: { left: `${place(mean)}%` } })];
  return make("div", { class: "bar" }, ...lines, ...signs);
}

function details(row, at) {
  const about = row.about && make("p", { class: "about" }, row.about[0].toUpperCase() + row.about.slice(1) + ".");
  const left = make("div", {}, facts(row));
  const right = make("div", {}, row.scores ? scoreFacts(row) : metricFacts(row));
  const pick = (side) =>
    make("button", { type: "button", onclick: () => choose(side, at) }, `Compare as ${side.toUpperCase()}`);
  const acts = make("div", { class: "acts" }, pick("a"), pick("b"));
  return [about || null, make("div", { class: "facts" }, left, right), acts];
}

function list(pairs) {
  const known = pairs.filter(([, text]) => text !== null && text !== undefined && text !== "" && text !== false);
  return make("dl", {}, ...known.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

function facts(row) {
  const { training, provenance, protocol } = row;
  const link = row.link && row.link.startsWith("https://")
    ? make("a", { href: row.link, rel: "noopener noreferrer nofollow" }, row.link) : null;
  const trained = training && `${several(training.runs, "run")} of ${several(training.plays, "play")}`
    + (training.trains_executors ? "; executors trained, too" : "; executors frozen");
  const versions = provenance && Object.entries(provenance.versions).filter(([, version]) => version)
    .map(([name, version]) => `${name} ${version}`).join(", ");
  return list([
    ["by", row.by], ["link", link], ["status", row.status], ["training", trained],
    ["command", training && training.command && make("code", {}, training.command)],
    ["played", protocol && `${several(protocol.queries, "test query", "test queries")} of `
      + (protocol.seed === null ? "secret seeds" : `seed ${protocol.seed}`)
      + (protocol.replicates > 1 ? `, ${protocol.replicates} times each` : "")],
    ["parameters", !row.scores && state.view.setting.params], ["commit", provenance && provenance.commit],
    ["date", provenance && provenance.date],
    ["device", provenance && provenance.device], ["versions", versions],
  ]);
}

function metricFacts(row) {
  const pairs = Object.entries(row.metrics).map(([name, found]) =>
    [name.replaceAll("_", " "), `${short(found[0])} ${interval(found)}`]);
  if (row.score) pairs.unshift(["score", `${number(row.score[0])} ${interval(row.score)}`]);
  if (row.values.length > 1) pairs.push([`${state.view.metric} by run`, strip(row)]);
  return list(pairs);
}

function scoreFacts(row) {
  return list(state.view.scenarios.map((scenario) => {
    const found = row.scores[scenario];
    return [scenario, found ? `${number(found[0])} ${interval(found)}` : "not played"];
  }));
}

/** Draw what every run came to, between the least and the most of all rows. */
function strip(row) {
  const all = state.view.rows.flatMap((one) => one.values);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const place = (x) => 4 + 192 * ((x - low) / (high - low || 1));
  const dots = row.values.map((x, run) => draw("circle", { cx: place(x), cy: 10, r: 3.4 },
    draw("title", {}, `seed ${row.seeds[run]}: ${short(x)}`)));
  return draw("svg", { class: "strip", viewBox: "0 0 200 20", preserveAspectRatio: "xMinYMid meet", role: "img",
    "aria-label": row.values.map(short).join(", ") }, draw("line", { x1: 4, x2: 196, y1: 10, y2: 10 }), ...dots);
}

// --- success against cost

/** Return which points no other beats: none is cheaper and as good, none is as cheap and better. */
function frontOf(points) {
  const order = [...points].sort((p, q) => p.cost - q.cost || q.success - p.success);
  let best = -Infinity;
  return order.filter((point) => {
    const copy = order.some((other) => other !== point && other.best && other.cost === point.cost
      && other.success === point.success);
    point.best = point.success > best || copy;
    best = Math.max(best, point.success);
    return point.best;
  });
}

function points() {
  const kept = new Set(visible());
  const all = state.view.rows.map((row, at) => ({ row, at }))
    .filter(({ row }) => row.metrics.success && row.metrics.cost)
    .filter(({ row }) => !isOverall(state.view) || value(row, "scenarios") === state.view.scenarios.length)
    .map(({ row, at }) => ({ row, at, cost: row.metrics.cost[0], success: row.metrics.success[0] }));
  return { front: frontOf(all), shown: all.filter(({ row }) => kept.has(row)) };
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

/** Return axes for the points: cost by its logarithm where it spans much. */
function axes(shown, width, height) {
  const costs = shown.flatMap(({ row }) => row.metrics.cost);
  const successes = shown.flatMap(({ row }) => row.metrics.success);
  const edge = { left: 40, right: 14, top: 14, bottom: 40 };
  const most = Math.max(...costs), least = Math.min(...costs), top = Math.min(Math.max(...successes) * 1.06, 1) || 1;
  const logarithmic = least > 0 && most / least > 8;
  const turn = logarithmic ? Math.log : (x) => x;
  const [from, to] = logarithmic ? [least * 0.9, most * 1.1] : [0, most * 1.04 || 1];
  const share = (cost) => (turn(cost) - turn(from)) / (turn(to) - turn(from));
  const x = (cost) => edge.left + (width - edge.left - edge.right) * share(cost);
  const y = (success) => height - edge.bottom - (height - edge.top - edge.bottom) * (success / top);
  const decades = [0.01, 0.1, 1, 10, 100, 1000].flatMap((power) => [1, 2, 5].map((one) => one * power));
  const across = logarithmic ? decades.filter((cost) => cost >= from && cost <= to) : ticks(0, to, 5);
  return { x, y, edge, across, up: ticks(0, top, 5) };
}

function renderPlot() {
  const { front, shown } = points();
  find("front").hidden = shown.length < 2;
  if (shown.length < 2) return;
  const width = Math.max(find("plot").clientWidth, 260);
  const height = Math.round(Math.min(Math.max(width * 0.85, 280), 400));
  const scale = axes(shown, width, height);
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label":
    "Success against cost; arrow keys go from point to point, from cheap to dear" }, ...frame(scale, width, height));
  const line = front.filter((point) => shown.includes(point)).sort((p, q) => p.cost - q.cost);
  if (line.length > 1) picture.append(draw("path", { class: "frontier", d: stairs(line, scale) }));
  const order = [...shown].sort((p, q) => p.best - q.best);
  picture.append(...order.filter((p) => p.best).flatMap((point) => errors(point, scale)));
  picture.append(...order.map((point) => dot(point, scale)));
  picture.append(...labels(line, shown, scale, width));
  picture.addEventListener("keydown", walk);
  find("plot").replaceChildren(picture);
  const first = picture.querySelector(".point.best") || picture.querySelector(".point");
  first.setAttribute("tabindex", "0");
  const note = "The upper left is better. The line joins what no other method beats in both.";
  find("plot-note").textContent = isOverall(state.view) ? `${note} Means of methods played in all scenarios.` : note;
}

function frame({ x, y, edge, across, up }, width, height) {
  const bottom = height - edge.bottom;
  return [
    ...up.flatMap((at) => [draw("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(at), y2: y(at) }),
      draw("text", { x: edge.left - 6, y: y(at) + 4, "text-anchor": "end" }, String(Number(at.toFixed(3))))]),
    ...across.flatMap((at) => [draw("line", { class: "grid", x1: x(at), x2: x(at), y1: edge.top, y2: bottom }),
      draw("text", { x: x(at), y: bottom + 16, "text-anchor": "middle" }, String(Number(at.toFixed(3))))]),
    draw("text", { x: width - edge.right, y: height - 6, "text-anchor": "end" }, "cost →"),
    draw("text", { x: 0, y: 8 }, "success ↑"),
  ];
}

/** Join the front in steps: a cost buys the success of the last point that is no dearer. */
function stairs(line, { x, y }) {
  return line.map((p, at) => (at ? `H${x(p.cost)}V${y(p.success)}` : `M${x(p.cost)} ${y(p.success)}`)).join("");
}

function errors({ row }, { x, y }) {
  const [cost, cheap, dear] = row.metrics.cost, [success, low, high] = row.metrics.success;
  return [[cheap, dear, success, success], [cost, cost, low, high]].map(([x1, x2, y1, y2]) =>
    draw("line", { class: `error ${row.kind}`, x1: x(x1), x2: x(x2), y1: y(y1), y2: y(y2) }));
}

function dot(point, { x, y }) {
  const { row, at } = point;
  const enter = () => light(at, true, [x(point.cost), y(point.success)]), leave = () => light(at, false);
  return draw("path", {
    class: `point ${row.kind}${point.best ? " best" : ""}`, d: outline(row.kind, 4.6), "data-at": at,
    transform: `translate(${x(point.cost).toFixed(1)} ${y(point.success).toFixed(1)})`, role: "button", tabindex: "-1",
    "data-cost": point.cost, "aria-label": `${row.name}: success ${short(point.success)}, cost ${short(point.cost)}`
      + (point.best ? ", on the front" : ""),
    onmouseenter: enter, onmouseleave: leave, onfocus: enter, onblur: leave, onclick: () => reveal(at),
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      reveal(at);
    },
  });
}

/** Return a long name without what it begins with: its algorithm. */
function briefly(name) {
  const last = name.length > 22 && name.includes(", ") ? name.slice(name.indexOf(", ") + 2) : name;
  return last.length > 26 ? `${last.slice(0, 25)}…` : last;
}

/** Write the names of the front where they cover no sign and no other name. */
function labels(line, shown, { x, y }, width) {
  const taken = shown.map(({ cost, success }) => [x(cost) - 5, y(success) - 6, x(cost) + 5, y(success) + 6]);
  const found = [];
  for (const point of [...line].reverse()) {
    const long = briefly(point.row.name);
    const wide = long.length * 6.2, px = x(point.cost), py = y(point.success);
    const places = [[px - 8 - wide, py - 6], [px - wide / 2, py - 11], [px + 9, py + 4], [px + 6, py + 16],
      [px - 9 - wide, py + 4], [px - wide / 2, py + 20]];
    const boxes = places.map(([left, base]) => [left, base - 10, left + wide, base + 3]);
    const at = boxes.findIndex((box) => box[0] > 40 && box[2] < width && box[1] > 8
      && !taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]));
    if (at < 0) continue;
    taken.push(boxes[at]);
    found.push(draw("text", { class: "name", x: places[at][0], y: places[at][1], "aria-hidden": "true" }, long));
  }
  return found;
}

/** Set off a method in the table and in the plot; with a place in the plot, say what it is there. */
function light(at, on, place) {
  for (const one of document.querySelectorAll(`[data-at="${at}"]`)) one.classList.toggle("lit", on);
  find("plot").querySelector(".tip")?.remove();
  if (!on || !place) return;
  const row = state.view.rows[at];
  const line = (key) => `${key} ${short(row.metrics[key][0])} ${interval(row.metrics[key])}`;
  const tip = make("div", { class: "tip" }, make("b", {}, row.name), line("success"), make("br"), line("cost"));
  if (row.score) tip.append(make("br"), `score ${number(row.score[0], 2)} ${interval(row.score)}`);
  find("plot").append(tip);
  const left = Math.min(Math.max(place[0] - tip.offsetWidth / 2, 0), find("plot").clientWidth - tip.offsetWidth);
  const above = place[1] - tip.offsetHeight - 12;
  Object.assign(tip.style, { left: `${left}px`, top: `${above > -20 ? above : place[1] + 14}px` });
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...find("plot").querySelectorAll(".point")].sort((p, q) => p.dataset.cost - q.dataset.cost);
  const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
  event.target.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

/** Open a method's row and go there. */
function reveal(at) {
  state.open.add(at);
  state.all = true;
  renderTable();
  find("table").querySelector(`tr[data-at="${at}"]`)?.scrollIntoView({ block: "center" });
}

// --- compare two

function choose(side, at) {
  state[side] = at;
  renderCompare();
  find("compare").scrollIntoView({ block: "nearest" });
}

/** Return the chance that a run of A beats one of B, `[mean, low, high]`, or null where both are single runs. */
function chance(a, b) {
  if (a === b) return null;
  const found = state.view.wins[Math.min(a, b)][Math.abs(a - b) - 1];
  return found && a > b ? [1 - found[0], 1 - found[2], 1 - found[1]] : found;
}

function renderCompare() {
  const { rows } = state.view;
  find("compare").hidden = rows.length < 2;
  if (rows.length < 2) return;
  find("a").value = state.a;
  find("b").value = state.b;
  const [a, b] = [rows[state.a], rows[state.b]];
  const odds = chance(state.a, state.b);
  const parts = () => [...verdict(a, b, odds), differences(a, b)];
  find("verdict").replaceChildren(...a === b ? [make("p", { class: "say" }, "Choose two methods.")] : parts());
}

function verdict(a, b, odds) {
  const what = isOverall(state.view) ? "earns more, as a mean over the scenarios that both were played in" :
    state.view.metric === "throughput" ? "delivers more" : "earns more";
  if (!odds) {
    const shared = !isOverall(state.view) || Object.keys(a.scores).some((scenario) => scenario in b.scores);
    return [make("p", { class: "say" }, shared
      ? "Both are single runs: there is no probability, only the difference of means."
      : "They were not played in the same scenario.")];
  }
  const rail = make("div", { class: "rail" }, make("i"),
    make("span", { style: { left: `${100 * odds[1]}%`, width: `${100 * (odds[2] - odds[1])}%` } }),
    make("em", { style: { left: `${100 * odds[0]}%` } }));
  const ends = make("div", { class: "ends" }, make("span", {}, "B is better"), make("span", {}, "A is better"));
  const [mean, low, high] = odds.map((x) => number(x, 2));
  const say = make("p", { class: "say" }, "A run of ", make("b", {}, a.name), ` ${what} than one of `,
    make("b", {}, b.name), " with probability ", make("b", { id: "odds" }, mean), ` [${low}, ${high}].`);
  return [say, make("div", { class: "odds", "aria-hidden": "true" }, rail, ends)];
}

function differences(a, b) {
  const keys = columns().map(({ key }) => key).filter((key) => estimate(a, key) && estimate(b, key));
  const rows = keys.map((key) => {
    const [x, y] = [estimate(a, key)[0], estimate(b, key)[0]];
    const label = COLUMNS.find((column) => column.key === key).label;
    return make("tr", {}, ...[label, short(x), short(y), signed(x - y)].map((text) => make("td", {}, text)));
  });
  const head = make("tr", {}, ...["mean", "A", "B", "A − B"].map((text) => make("th", { scope: "col" }, text)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

// --- the whole

function renderSetting() {
  const view = state.view;
  const played = view.rows.map((row) => row.protocol && row.protocol.queries).filter(Boolean);
  const counts = [...new Set(played)].sort((p, q) => q - p);
  find("setting").textContent = isOverall(view)
    ? `Mean score over the scenarios that a method was played in: ${view.scenarios.join(", ")}. Ranked are those that `
      + "were played in all of them: means over different scenarios do not compare."
    : `${viewName(view)} · ${counts.map(whole).join(" or ")} test queries`
      + (view.scores ? "" : " · no scores, as no anchors are frozen for this setting");
}

function render() {
  renderSetting();
  renderChips();
  renderTable();
  renderPlot();
  renderCompare();
}

function listen() {
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("view").addEventListener("change", ({ target }) => {
    show(DATA.views.find((view) => view.id === target.value));
    history.replaceState(null, "", `#${encodeURIComponent(target.value)}`);
  });
  find("find").addEventListener("input", ({ target }) => { state.text = target.value; render(); });
  find("order").addEventListener("change", ({ target }) => sortBy(target.value));
  find("turn").addEventListener("click", () => { state.up = !state.up; render(); });
  find("more").addEventListener("click", () => { state.all = true; renderTable(); });
  for (const side of ["a", "b"]) {
    find(side).addEventListener("change", ({ target }) => { state[side] = Number(target.value); renderCompare(); });
  }
  find("swap").addEventListener("click", () => { [state.a, state.b] = [state.b, state.a]; renderCompare(); });
  PHONE.addEventListener("change", render);
  addEventListener("resize", renderPlot);
}

function begin() {
  const asked = decodeURIComponent(location.hash.slice(1));
  const parts = [`${several(DATA.results, "result file")}, jaxmas ${DATA.version}`];
  if (DATA.newest) parts.push(`newest commit of ${DATA.newest}`);
  find("built").textContent = `Built from ${parts.join(", ")}.`;
  fillViews();
  listen();
  show(DATA.views.find((view) => view.id === asked) || DATA.views[0]);
}

begin();
