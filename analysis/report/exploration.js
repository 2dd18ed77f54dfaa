// Schemes at one point, as gradwire.analysis.exploration compares them.

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// One training's evaluations as far as they are finite, and the place of the first on target, or -1.
function timedCurve(clock, curve, plan, goal) {
  const completed = plan.steps.reduce((sum, [, count]) => sum + count, 0);
  const bad = curve.metric.findIndex((value, i) => value === null || curve.steps[i] > completed);
  const end = bad < 0 ? curve.metric.length : bad;
  const steps = curve.steps.slice(0, end), metric = curve.metric.slice(0, end);
  const meets = (value) => goal.target !== null && (goal.higher ? value >= goal.target : value <= goal.target);
  return { steps, metric, seconds: clock.ends(plan, steps), reached: metric.findIndex(meets) };
}

function meanStep(clock, plans) {
  const known = plans.map((plan) => clock.meanStep(plan)).filter((total) => total !== null);
  if (!known.length) return null;
  return Array.from(known[0], (_, i) => mean(known.map((total) => total[i])));
}

function failureOf(statuses) {
  const failed = statuses.filter((status) => status !== "completed");
  if (statuses.length > 1 && failed.length) return `${failed.length} of ${statuses.length} seeds failed`;
  return failed.length ? failed[0].split(":")[0] : "";
}

function rowOf(data, clock, candidate, goal) {
  const variants = candidate.variants.map((plans) => plans.map((place) => data.plans[place]));
  const steps = variants.map((plans) => meanStep(clock, plans));
  const seconds = steps.map((step) => (step === null ? Infinity : step[0]));
  const fastest = seconds.indexOf(Math.min(...seconds));
  const curves = candidate.curves.map((place) => data.curves[place]);
  const runs = curves.map((curve, i) => timedCurve(clock, curve, variants[fastest][i], goal));
  const reached = runs.filter((run) => run.reached >= 0).length;
  const every = runs.length > 0 && reached === runs.length;
  const shared = runs.length ? Math.min(...runs.map((run) => run.metric.length)) : 0;
  const along = (name) => Array.from({ length: shared }, (_, i) => mean(runs.map((run) => run[name][i])));
  return {
    scheme: candidate.scheme,
    uncompressed: candidate.uncompressed,
    seeds: runs.length,
    reached,
    failure: failureOf(curves.map((curve) => curve.status)),
    phases: steps[fastest] === null ? Array(TOTALS - 1).fill(null) : steps[fastest].slice(1),
    step: steps[fastest] === null ? null : steps[fastest][0],
    stepsToTarget: every ? mean(runs.map((run) => run.steps[run.reached])) : null,
    timeToTarget: every ? mean(runs.map((run) => run.seconds[run.reached])) : null,
    final: runs.length && curves.every((curve) => curve.final !== null) ? mean(curves.map((curve) => curve.final)) : null,
    seconds: along("seconds"),
    metric: along("metric"),
  };
}

const least = (rows, value) => rows.reduce((best, row) => (best === null || value(row) < value(best) ? row : best), null);

function bestUncompressed(rows) {
  const rivals = rows.filter((row) => row.uncompressed && !row.failure);
  const reached = rivals.filter((row) => row.timeToTarget !== null);
  return reached.length ? least(reached, (row) => row.timeToTarget) : least(rivals, (row) => row.step);
}

function explore(data, point, goal) {
  const clock = new Clock(data, point);
  const here = data.candidates.filter(
    (one) => one.workers === point.workers && (one.density === null || one.density === point.density),
  );
  const rows = here.map((one) => rowOf(data, clock, one, goal));
  const baseline = bestUncompressed(rows);
  for (const row of rows) {
    const comparable = baseline !== null && row.timeToTarget && baseline.timeToTarget !== null;
    row.speedup = comparable ? baseline.timeToTarget / row.timeToTarget : null;
    row.stepSpeedup = baseline !== null && row.step !== null ? baseline.step / row.step : null;
  }
  return { rows, baseline, verdict: verdictOf(rows, baseline, goal) };
}
