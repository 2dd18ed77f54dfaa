// Steps in closed form: what gradwire.sim.step.closed_form and phases compute, for one log and one point.
// Totals of a step: [step, forward, backward, encode, decode, optimizer, exposed communication].

const TOTAL_OF_KIND = [1, 2, 3, 4, 4, 5]; // forward, backward, encode, between, decode, optimizer
const EXPOSED = 6, TOTALS = 7, OPTIMIZER = 5;

function collectiveSeconds(cost, log, point) {
  const [launches, hops, bytes, fixed, inside] = cost.map((column) => (typeof column === "number" ? column : column[log]));
  const across = hops * point.latency + (8 * bytes) / point.bandwidth;
  return fixed + launches * point.launch + Math.max(across, inside);
}

function stepTotals(tasks, exchanges, log, point) {
  const total = new Float64Array(TOTALS);
  const free = [0, 0]; // of the compute resource, and of the codec's stream
  const exchanged = [], ended = [];
  let network = 0;
  for (const [kind, seconds, after, before, resource, needs] of tasks) {
    let start = free[resource];
    if (after >= 0) start = Math.max(start, exchanged[after]);
    if (needs >= 0) start = Math.max(start, ended[needs]);
    const codes = TOTAL_OF_KIND[kind] === 3 || TOTAL_OF_KIND[kind] === 4;
    const taken = codes ? point.cost * seconds : seconds;
    if (resource === 0) {
      total[EXPOSED] += start - free[0];
      total[TOTAL_OF_KIND[kind]] += taken;
    }
    free[resource] = start + taken;
    ended.push(start + taken);
    if (kind === OPTIMIZER) total[0] = start + taken;
    if (before >= 0) {
      let duration = 0;
      for (const cost of exchanges[before]) duration += collectiveSeconds(cost, log, point);
      network = Math.max(network, start + taken) + duration;
      exchanged.push(network);
    }
  }
  return total;
}

// Times plans at one point; each log of each graph is evaluated once, whoever shares it.
class Clock {
  constructor(data, point) {
    this.data = data;
    this.point = point;
    this.known = new Map();
  }

  logs(plan) {
    return plan.graphs.flatMap(([tasks, costs, count]) => {
      const key = `${tasks} ${costs} ${count}`;
      if (!this.known.has(key)) {
        const one = (_, log) => stepTotals(this.data.tasks[tasks], this.data.costs[costs], log, this.point);
        this.known.set(key, Array.from({ length: count }, one));
      }
      return this.known.get(key);
    });
  }

  // When the first steps[i] steps are over, for rising steps.
  ends(plan, steps) {
    const logs = this.logs(plan);
    const found = [];
    let done = 0, now = 0;
    for (const [log, count] of plan.steps) {
      while (found.length < steps.length && steps[found.length] <= done + count) {
        found.push(now + (steps[found.length] - done) * logs[log][0]);
      }
      done += count;
      now += count * logs[log][0];
    }
    while (found.length < steps.length) found.push(now);
    return found;
  }

  // The mean step of a run; null if it has none.
  meanStep(plan) {
    const logs = this.logs(plan);
    const total = new Float64Array(TOTALS);
    let done = 0;
    for (const [log, count] of plan.steps) {
      logs[log].forEach((seconds, i) => (total[i] += count * seconds));
      done += count;
    }
    return done ? total.map((seconds) => seconds / done) : null;
  }
}
