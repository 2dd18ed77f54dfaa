// The explorer: sliders move a point, and everything below is computed anew for it.

const root = document.querySelector(".explorer");
const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
const goal = data.goal;
const point = { ...data.start };

// Continuous quantities. A slider's position is the decimal logarithm; below the lowest stands 0 where that is allowed.
const QUANTITIES = { bandwidth: BANDWIDTH, latency: DURATION, cost: FACTOR };
const LEAST = { bandwidth: Number.MIN_VALUE, latency: 0, cost: 0 };

const find = (selector) => root.querySelector(selector);

function valueAt(slider, zero) {
  const position = Number(slider.value);
  return zero && position === Number(slider.min) ? 0 : Number((10 ** position).toPrecision(3));
}

function connectQuantity(name) {
  const slider = find(`#explorer-${name}`), exact = find(`#explorer-${name}-exact`), fault = find(`#explorer-${name}-fault`);
  const quantity = QUANTITIES[name], zero = "zero" in slider.dataset;
  const accept = (value) => {
    point[name] = value;
    exact.value = formatQuantity(value, quantity);
    exact.dataset.value = value;
    exact.removeAttribute("aria-invalid");
    fault.textContent = "";
    slider.setAttribute("aria-valuetext", exact.value);
  };
  const show = (value) => {
    accept(value);
    slider.value = value > 0 ? Math.log10(value) : slider.min;
  };
  slider.addEventListener("input", () => {
    accept(valueAt(slider, zero));
    render();
  });
  exact.addEventListener("change", () => {
    const value = parseQuantity(exact.value, quantity);
    if (Number.isFinite(value) && value >= LEAST[name]) {
      show(value);
      render();
    } else {
      exact.setAttribute("aria-invalid", "true");
      fault.textContent = `Write it like ${formatQuantity(point[name], quantity)}`;
    }
  });
  return () => show(point[name]);
}

// Positions that there are plans for; what was not trained there shows step times only.
function connectPositions(name, positions) {
  const slider = find(`#explorer-${name}`), output = find(`#explorer-${name}-value`);
  if (slider === null) return { place() {}, describe() {} };
  slider.addEventListener("input", () => {
    point[name] = positions[Number(slider.value)];
    render();
  });
  const describe = () => {
    const here = data.candidates.filter((one) => one[name] === point[name] && (name === "workers" || one.workers === point.workers));
    const trained = here.some((one) => one.curves.length);
    output.value = `${point[name]}${trained ? "" : " (not trained)"}`;
    output.dataset.value = point[name];
    slider.setAttribute("aria-valuetext", output.value);
  };
  const place = () => {
    slider.value = positions.indexOf(point[name]);
  };
  return { place, describe };
}

const quantities = Object.keys(QUANTITIES).map(connectQuantity);
const positions = [connectPositions("density", data.densities), connectPositions("workers", data.workers)];

function cell(row, text, value) {
  const made = row.insertCell();
  made.className = "number";
  made.textContent = text;
  if (value === null) made.classList.add("missing");
  else made.dataset.value = value;
}

function nameCell(tableRow, row, isBaseline) {
  const head = document.createElement("th");
  head.scope = "row";
  const code = head.appendChild(document.createElement("code"));
  row.scheme.split("(").forEach((part, i) => code.append(...(i ? ["(", document.createElement("wbr"), part] : [part])));
  if (isBaseline) {
    const badge = document.createElement("span");
    badge.className = "badge";
    badge.textContent = "baseline";
    head.append(" ", badge);
  }
  tableRow.append(head);
}

function targetText(row, known) {
  if (!row.seeds) return "not trained";
  if (known !== MISSING) return known;
  return row.reached ? `${row.reached} of ${row.seeds} seeds` : "not reached";
}

function renderTable(table, rows, baseline) {
  table.tBodies[0].replaceChildren();
  for (const row of rows) {
    const made = table.tBodies[0].insertRow();
    nameCell(made, row, row === baseline);
    if (goal.target !== null) {
      cell(made, targetText(row, formatSeconds(row.timeToTarget)), row.timeToTarget);
      cell(made, formatRatio(row.speedup), row.speedup);
      cell(made, targetText(row, formatCount(row.stepsToTarget)), row.stepsToTarget);
    }
    cell(made, row.seeds ? row.failure || formatMetric(row.final, goal) : "not trained", row.final);
    cell(made, formatSeconds(row.step), row.step);
    cell(made, formatRatio(row.stepSpeedup), row.stepSpeedup);
    for (const seconds of row.phases) cell(made, formatSeconds(seconds), seconds);
  }
  table.dispatchEvent(new Event("rows"));
}

function renderVerdict(paragraph, verdict) {
  const end = verdict.indexOf(": ") + 1;
  const strong = document.createElement("strong");
  strong.textContent = verdict.slice(0, end);
  paragraph.replaceChildren(strong, verdict.slice(end));
}

function render() {
  const { rows, baseline, verdict } = explore(data, point, goal);
  for (const position of positions) position.describe();
  renderVerdict(find(".answer"), verdict);
  renderTable(find("table"), rows, baseline);
  const drawn = rows.filter((row) => row.seconds.length > 1);
  find("figure").hidden = !drawn.length;
  const width = Math.max(200, find("figure").clientWidth - 24); // there may be no layout yet
  if (drawn.length) drawChart(find("figure > svg"), drawn, data.looks, goal, width);
  drawLegend(find(".legend"), drawn, data.looks);
  const missing = rows.filter((row) => !row.seeds).map((row) => row.scheme);
  find(".untrained").textContent = missing.length
    ? `Not trained here, so that only the times of steps are known: ${missing.join(", ")}.`
    : "";
}

function reset() {
  Object.assign(point, data.start);
  for (const show of quantities) show();
  for (const position of positions) position.place();
  render();
}

find(".reset").addEventListener("click", reset);
new ResizeObserver(() => render()).observe(find(".outcome"));
reset();
