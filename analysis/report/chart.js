// Curves of the validation metric against virtual time, as SVG; colours, markers and dashes are those of the figures.

const WIDE = 10; // values that spread over more than this factor get a logarithmic axis
const MARKERS = {
  o: "M-3.2 0A3.2 3.2 0 1 1 3.2 0A3.2 3.2 0 1 1 -3.2 0Z",
  s: "M-2.9-2.9H2.9V2.9H-2.9Z",
  D: "M0-4L4 0 0 4-4 0Z",
  "^": "M0-4L3.7 2.8H-3.7Z",
  v: "M0 4L3.7-2.8H-3.7Z",
  P: "M-1.4-3.8H1.4V-1.4H3.8V1.4H1.4V3.8H-1.4V1.4H-3.8V-1.4H-1.4Z",
  X: "M0-1.9L1.9-3.8 3.8-1.9 1.9 0 3.8 1.9 1.9 3.8 0 1.9-1.9 3.8-3.8 1.9-1.9 0-3.8-1.9-1.9-3.8Z",
  "*": "M0-4.4L1.2-1.4 4.3-1.3 1.9.7 2.7 3.7 0 2 -2.7 3.7-1.9.7-4.3-1.3-1.2-1.4Z",
};

function element(parent, name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return parent.appendChild(made);
}

// Black would vanish on a dark ground.
const strokeOf = (look) => (look.colour === "#000000" ? "var(--ink)" : look.colour);

// An axis over values from low to high: where a value lies, between 0 and 1, and its ticks.
function makeAxis(low, high, logarithmic) {
  const scale = logarithmic ? Math.log10 : (value) => value;
  const from = scale(low), over = scale(high) - from || 1;
  const ticks = logarithmic ? logTicks(low, high) : linearTicks(low, high);
  return { place: (value) => (scale(value) - from) / over, ticks };
}

function linearTicks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((size) => size >= rough * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const leading = high > 100 * low ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of leading) {
      const value = Number(`${digit}e${power}`);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.push(value);
    }
  }
  return ticks;
}

function timeAxis(rows) {
  const endsOf = (some) => some.map((row) => row.seconds.at(-1)).filter((end) => end > 0);
  const latest = Math.max(0, ...endsOf(rows)); // a training that failed early makes no axis logarithmic
  const soonest = Math.min(latest, ...endsOf(rows.filter((row) => !row.failure)));
  const logarithmic = latest > WIDE * soonest;
  const [unit, name] = timeUnit(logarithmic ? soonest : latest);
  const first = Math.min(...rows.flatMap((row) => row.seconds.filter((value) => value > 0)));
  const axis = logarithmic ? makeAxis(first / unit, (1.05 * latest) / unit, true) : makeAxis(0, (1.02 * latest || 1) / unit, false);
  return { ...axis, unit, title: `virtual time (${name}${logarithmic ? ", logarithmic" : ""})`, logarithmic };
}

function metricAxis(rows, goal) {
  const values = [...rows.flatMap((row) => row.metric), ...(goal.target === null ? [] : [goal.target])];
  const low = Math.min(...values), high = Math.max(...values);
  const logarithmic = !goal.share && low > 0 && high > WIDE * low;
  const room = 0.04 * (high - low) || 0.05 * Math.abs(high) || 1;
  return logarithmic ? makeAxis(low / 1.1, high * 1.1, true) : makeAxis(low - room, high + room, false);
}

const tickText = (value, share) => (share ? `${Number((100 * value).toPrecision(6))} %` : `${Number(value.toPrecision(6))}`);

// Draws rows that have a curve into an empty picture, so many pixels wide.
function drawChart(svg, rows, looks, goal, width) {
  const height = Math.round(Math.min(380, Math.max(250, 0.56 * width)));
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const area = { left: 56, right: width - 12, top: 26, bottom: height - 44 };
  const time = timeAxis(rows), metric = metricAxis(rows, goal);
  const x = (seconds) => area.left + (area.right - area.left) * time.place(seconds / time.unit);
  const y = (value) => area.bottom - (area.bottom - area.top) * metric.place(value);
  drawAxes(svg, area, time, metric, goal, x, y);
  if (goal.target !== null) drawTarget(svg, area, goal, y(goal.target));
  for (const row of rows) drawCurve(svg, row, looks[row.scheme], time.logarithmic, x, y);
  if (goal.target === null) return;
  for (const row of rows.filter((one) => one.timeToTarget > 0)) {
    const group = element(svg, "g", { class: "reached", stroke: strokeOf(looks[row.scheme]) });
    const place = x(row.timeToTarget).toFixed(2), level = y(goal.target).toFixed(2);
    element(group, "path", { d: `M${place} ${level}V${area.bottom}`, "stroke-dasharray": "1.5 3", fill: "none" });
    element(group, "circle", { cx: place, cy: level, r: 6, "stroke-width": 2 });
    group.dataset.scheme = row.scheme;
    group.dataset.seconds = row.timeToTarget;
  }
}

function drawAxes(svg, area, time, metric, goal, x, y) {
  const grid = element(svg, "g", { class: "grid" }), text = element(svg, "g", { class: "ticks" });
  let free = -Infinity; // labels that would run into the one before are left out
  for (const tick of time.ticks) {
    const place = x(tick * time.unit), label = tickText(tick, false);
    element(grid, "path", { d: `M${place.toFixed(2)} ${area.top}V${area.bottom}` });
    if (place - 3.5 * label.length < free) continue;
    element(text, "text", { x: place.toFixed(2), y: area.bottom + 17, "text-anchor": "middle" }, label);
    free = place + 3.5 * label.length + 8;
  }
  for (const tick of metric.ticks) {
    const place = y(tick);
    element(grid, "path", { d: `M${area.left} ${place.toFixed(2)}H${area.right}` });
    element(text, "text", { x: area.left - 7, y: (place + 4).toFixed(2), "text-anchor": "end" }, tickText(tick, goal.share));
  }
  element(svg, "path", { class: "axes", d: `M${area.left} ${area.top}V${area.bottom}H${area.right}` });
  element(svg, "text", { x: (area.left + area.right) / 2, y: area.bottom + 37, "text-anchor": "middle" }, time.title);
  element(svg, "text", { x: 2, y: 14 }, `validation ${goal.metric}`);
}

function drawTarget(svg, area, goal, level) {
  element(svg, "path", { class: "target", d: `M${area.left} ${level.toFixed(2)}H${area.right}` });
  const attributes = { x: area.right, y: 14, "text-anchor": "end", class: "quiet" };
  element(svg, "text", attributes, `dashed: target, ${goal.targetText}`);
}

function drawCurve(svg, row, look, logarithmic, x, y) {
  const first = logarithmic ? row.seconds.findIndex((value) => value > 0) : 0; // time 0 is on no logarithmic axis
  if (first < 0) return;
  const points = row.seconds.slice(first).map((value, i) => [x(value).toFixed(2), y(row.metric[first + i]).toFixed(2)]);
  const group = element(svg, "g", { class: "curve", stroke: strokeOf(look), fill: strokeOf(look) });
  group.dataset.scheme = row.scheme;
  group.dataset.seconds = JSON.stringify(row.seconds);
  group.dataset.metric = JSON.stringify(row.metric);
  const dashes = look.dashes.map((length) => 1.8 * length).join(" ");
  const line = { d: `M${points.map((point) => point.join(" ")).join("L")}`, fill: "none", "stroke-dasharray": dashes };
  element(group, "path", line);
  const every = Math.max(1, Math.floor(points.length / 10));
  points.forEach(([left, top], i) => {
    if (i % every === 0) element(group, "path", { class: "mark", d: MARKERS[look.marker], transform: `translate(${left} ${top})` });
  });
}

function drawLegend(list, rows, looks) {
  list.replaceChildren(
    ...rows.map((row) => {
      const look = looks[row.scheme];
      const item = document.createElement("li");
      const svg = element(item, "svg", { class: "curve", viewBox: "0 0 36 12", width: 36, height: 12, "aria-hidden": "true" });
      svg.setAttribute("stroke", strokeOf(look));
      svg.setAttribute("fill", strokeOf(look));
      element(svg, "path", { d: "M1 6H35", "stroke-dasharray": look.dashes.map((length) => 1.8 * length).join(" ") });
      element(svg, "path", { class: "mark", d: MARKERS[look.marker], transform: "translate(18 6)" });
      item.append(` ${row.scheme}${row.failure ? ` (${row.failure})` : ""}`);
      return item;
    }),
  );
}
