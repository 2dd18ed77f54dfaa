// The verdict at a point, as gradwire.analysis.exploration_verdict words it.

const TIE = 1.02, HARM = 0.01;

function verdictOf(rows, baseline, goal) {
  return verdictSentence(rows, baseline, goal) + (goal.proxy ? ` (${goal.proxy})` : "");
}

function verdictSentence(rows, baseline, goal) {
  const rivals = rows.filter((row) => !row.uncompressed);
  if (baseline === null) {
    const dense = rows.some((row) => row.uncompressed);
    const why = dense ? "no uncompressed scheme trained to the end" : "there is no uncompressed scheme (dense)";
    return `Cannot say: ${why}, so there is nothing to compare with.`;
  }
  if (!rivals.length) return `Nothing to decide: there is no compressing scheme beside ${baseline.scheme}.`;
  const survivors = rivals.filter((row) => !row.failure);
  if (!survivors.length) return "Do not compress: no compressing scheme trained to the end.";
  const trained = survivors.filter((row) => row.seeds);
  if (!trained.length || !baseline.seeds) return byStepsAlone(survivors, baseline);
  const unknown = survivors.filter((row) => !row.seeds).map((row) => row.scheme);
  const rest = unknown.length ? ` Not trained here: ${unknown.join(", ")}.` : "";
  if (goal.target === null || rows.some((row) => row.stepsToTarget === 0)) {
    return decide(trained, baseline, goal, false) + rest;
  }
  return byTarget(trained, baseline, goal) + rest;
}

function byTarget(trained, baseline, goal) {
  const reached = trained.filter((row) => row.timeToTarget !== null);
  const every = Math.max(baseline.seeds, ...trained.map((row) => row.seeds)) > 1 ? " with every seed" : "";
  if (baseline.timeToTarget !== null && reached.length) return decide(reached, baseline, goal, true);
  if (baseline.timeToTarget !== null) {
    const time = formatSeconds(baseline.timeToTarget);
    return `Do not compress: no compressing scheme reached ${goal.wanted}${every}, which ${baseline.scheme} does in ${time}.`;
  }
  if (!reached.length) return `No scheme reached ${goal.wanted}${every}, so the time to it decides nothing.`;
  const best = least(reached, (row) => row.timeToTarget);
  return `Compress: ${claim(best, goal, true)}, which no uncompressed scheme does${every}; its ${accuracy(best, baseline, goal)}.`;
}

function byStepsAlone(rivals, baseline) {
  const best = least(rivals, (row) => -(row.stepSpeedup ?? 0));
  const ratio = best.stepSpeedup ?? 0;
  const text = `Not trained here, so only steps are compared: ${stepClaim(best)}`;
  if (1 / TIE <= ratio && ratio <= TIE) return `${text}, within 2 % of ${baseline.scheme}.`;
  const more = `${text}, ${relation(ratio, baseline, false)}; it`;
  if (ratio > 1) return `${more} could take ${significant(ratio)} times as many steps before that lead is lost.`;
  return `${more} would have to take ${significant(ratio)} times as many steps, or fewer, to be as soon.`;
}

function decide(rivals, baseline, goal, byTime) {
  const speed = (row) => (byTime ? row.speedup : row.stepSpeedup) ?? 0;
  const ranked = [...rivals].sort((a, b) => speed(b) - speed(a));
  const faster = ranked.filter((row) => speed(row) > TIE);
  const harmless = faster.filter((row) => !harms(row, baseline, goal));
  const best = (harmless.length ? harmless : ranked)[0];
  const ratio = speed(best);
  const told = claim(best, goal, byTime), remark = accuracy(best, baseline, goal);
  if (!faster.length && ratio >= 1 / TIE) {
    return `It makes no difference: ${told}, within 2 % of ${baseline.scheme}; its ${remark}.`;
  }
  const reason = faster.length ? reasonToCompress(best, baseline) : reasonAgainst(best, baseline);
  const text = `${told}, ${relation(ratio, baseline, byTime)}, because ${reason}; its ${remark}.`;
  if (harmless.length) return `Compress: ${text}`;
  if (faster.length) return `Compress only if a worse model will do: ${text}`;
  return `Do not compress: ${rivals.length === 1 ? "" : "at best, "}${text}`;
}

function claim(row, goal, byTime) {
  if (!byTime) return stepClaim(row);
  return `${row.scheme} reaches ${goal.wanted} in ${formatSeconds(row.timeToTarget)} of virtual time`;
}

const stepClaim = (row) => `a step with ${row.scheme} takes ${formatSeconds(row.step)} of virtual time`;

function relation(ratio, baseline, byTime) {
  const name = baseline.scheme;
  if (ratio < 1 / 1.1) {
    const times = `${significant(1 / ratio, 2)} times as long as`;
    return byTime ? `${times} ${name} takes` : `${times} with ${name}`;
  }
  const [more, fewer, than] = byTime ? ["sooner", "later", "than"] : ["shorter", "longer", "than with"];
  if (ratio >= 1.1) return `${significant(ratio, 2)} times ${more} ${than} ${name}`;
  const share = ratio >= 1 ? `${fixed(100 * (1 - 1 / ratio), 0)} % ${more}` : `${fixed(100 * (1 / ratio - 1), 0)} % ${fewer}`;
  return `${share} ${than} ${name}`;
}

function reasonToCompress(best, baseline) {
  if ((baseline.stepsToTarget ?? 0) / (best.stepsToTarget || 1) <= (best.stepSpeedup ?? 0)) {
    return `${formatPercent(exposed(baseline) / baseline.step)} of the ${baseline.scheme} step is exposed communication`;
  }
  return stepsInstead(best, baseline);
}

function reasonAgainst(best, baseline) {
  const own = best.stepsToTarget ?? 0, other = baseline.stepsToTarget ?? 0;
  if (own > TIE * other && (best.stepSpeedup ?? 0) > 1 / TIE) return stepsInstead(best, baseline);
  const share = exposed(baseline) / baseline.step;
  if (share < 0.1) return `only ${formatPercent(share)} of the ${baseline.scheme} step is exposed communication`;
  const saved = exposed(baseline) - exposed(best);
  if (saved <= 0) {
    return `it exposes ${formatSeconds(exposed(best))} of communication a step, no less than ${baseline.scheme}`;
  }
  const codec = formatSeconds(best.phases[2] + best.phases[3]);
  return `encoding and decoding cost ${codec} a step, and save ${formatSeconds(saved)} of exposed communication`;
}

const exposed = (row) => row.phases[5];

function stepsInstead(best, baseline) {
  return `it needs ${formatCount(best.stepsToTarget ?? 0)} steps instead of ${formatCount(baseline.stepsToTarget ?? 0)}`;
}

function harms(row, baseline, goal) {
  if (row.final === null || baseline.final === null) return false;
  const gain = row.final - baseline.final;
  return (goal.higher ? gain : -gain) < -HARM * Math.abs(baseline.final);
}

function accuracy(row, baseline, goal) {
  const name = `final test ${goal.metric}`;
  if (row.final === null || baseline.final === null) return `${name} is not known`;
  const own = formatMetric(row.final, goal), other = formatMetric(baseline.final, goal);
  if (!goal.share) return own === other ? `${name} is the same (${own})` : `${name} is ${own} instead of ${other}`;
  const points = 100 * (row.final - baseline.final);
  if (Math.abs(points) < 0.05) return `${name} is the same (${own})`;
  return `${name} is ${fixed(Math.abs(points), 1)} points ${points > 0 ? "higher" : "lower"} (${own})`;
}
