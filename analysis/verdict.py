"""The answer in one sentence: does compression make this job finish sooner here, why, and at what price."""

from dataclasses import dataclass

from .comparison import Comparison, Row
from .formatting import format_metric, format_percent, format_seconds, format_target, is_share, significant

TIE = 1.02
"""Speeds whose ratio is at most this are called equal."""
HARM = 0.01
"""A final metric that is worse than the baseline's by more than this share of it counts as harm."""


def verdict(comparison: Comparison) -> str:
    """Answer whether compression makes the job finish sooner without hurting its accuracy, in one sentence.

    Schemes are compared by the time to the target; where there is none, or the untrained model meets it already, by
    the time of a step. A scheme that does harm is advised only where no harmless one is faster, and said to.
    """
    return _answer(comparison) + (f" ({comparison.proxy})" if comparison.proxy else "")


def _answer(comparison: Comparison) -> str:
    """Answer without regard to what stands in for what."""
    rivals = [row for row in comparison.rows if not row.uncompressed]
    survivors = [row for row in rivals if row.completed]
    if comparison.baseline is None:
        return _without_baseline(comparison)
    if not rivals:
        return f"Nothing to decide: no compressing scheme was run beside {comparison.baseline.scheme}."
    if not survivors:
        failures = " and ".join(f"{row.scheme} {row.status}" for row in rivals)
        return f"Do not compress: no compressing scheme trained to the end; {failures}."
    if comparison.target is None or any(row.steps_to_target == 0 for row in comparison.rows):
        return _decide(comparison, comparison.baseline, survivors, _ByStep(comparison.baseline))
    reached = [row for row in survivors if row.time_to_target_s is not None]
    if comparison.baseline.time_to_target_s is None:
        return _only_compressed(comparison, reached) if reached else _nobody(comparison)
    if not reached:
        best = comparison.baseline
        return (
            f"Do not compress: no compressing scheme reached {_wanted(comparison)} in {comparison.steps} steps, "
            f"which {best.scheme} did in {format_seconds(best.time_to_target_s)} of virtual time."
        )
    return _decide(comparison, comparison.baseline, reached, _ByTarget(comparison.baseline, _wanted(comparison)))


@dataclass(frozen=True)
class _ByTarget:
    """How to speak of schemes by their time to the target."""

    baseline: Row
    wanted: str

    def speed(self, row: Row) -> float:
        return row.speedup or 0.0

    def claim(self, row: Row) -> str:
        return f"{row.scheme} reaches {self.wanted} in {format_seconds(row.time_to_target_s)} of virtual time"

    def relation(self, ratio: float) -> str:
        if much_slower(ratio):
            return f"{significant(1 / ratio, 2)} times as long as {self.baseline.scheme} takes"
        return f"{faster_text(ratio, 'sooner', 'later')} than {self.baseline.scheme}"

    def cost_factor(self, row: Row) -> float:
        """Return by what factor codec costs would have to change for a draw, if all of the change were exposed."""
        steps, own_s, best_s = row.steps_to_target, row.time_to_target_s, self.baseline.time_to_target_s
        return 1 + ((best_s or 0.0) - (own_s or 0.0)) / (row.codec_s * (steps or 1))


@dataclass(frozen=True)
class _ByStep:
    """How to speak of schemes by the time of a step."""

    baseline: Row

    def speed(self, row: Row) -> float:
        return row.step_speedup or 0.0

    def claim(self, row: Row) -> str:
        return f"a step with {row.scheme} takes {format_seconds(row.step_s)} of virtual time"

    def relation(self, ratio: float) -> str:
        if much_slower(ratio):
            return f"{significant(1 / ratio, 2)} times as long as with {self.baseline.scheme}"
        return f"{faster_text(ratio, 'shorter', 'longer')} than with {self.baseline.scheme}"

    def cost_factor(self, row: Row) -> float:
        """Return by what factor codec costs would have to change for a draw, if all of the change were exposed."""
        return 1 + (self.baseline.step_s - row.step_s) / row.codec_s


def _decide(comparison: Comparison, baseline: Row, rivals: list[Row], words: _ByTarget | _ByStep) -> str:
    """Pick the rival to speak of and compose the sentence."""
    ranked = sorted(rivals, key=words.speed, reverse=True)
    faster = [row for row in ranked if words.speed(row) > TIE]
    harmless = [row for row in faster if not _harms(comparison, row, baseline)]
    best = (harmless or ranked)[0]
    ratio = words.speed(best)
    reason = _reason_to_compress(best, baseline) if ratio > TIE else _reason_against(best, baseline)
    estimate = _estimate(best, words.cost_factor(best), ratio) if best.estimated else ""
    relation = f"{words.claim(best)}, {words.relation(ratio)}, because {reason}"
    remarks = f"its {_accuracy(comparison, best, baseline)}{estimate}"
    if harmless:
        others = _also(comparison, baseline, best, faster, words)
        return f"Compress: {relation}; {remarks}{others}."
    if faster:
        return f"Compress only if a worse model will do: {relation}; {remarks}."
    if ratio >= 1 / TIE:
        draw = f"{words.claim(best)}, within 2 % of {baseline.scheme}, because {reason}"
        return f"It makes no difference: {draw}; {remarks}."
    return f"Do not compress: {'' if len(rivals) == 1 else 'at best, '}{relation}; {remarks}."


def _reason_to_compress(best: Row, baseline: Row) -> str:
    """Say what the faster scheme saves: steps, or the communication that its steps need not wait for."""
    fewer = (baseline.steps_to_target or 0) / (best.steps_to_target or 1)
    if fewer <= (best.step_speedup or 0.0):
        share = baseline.exposed_communication_s / baseline.step_s
        return f"{format_percent(share)} of the {baseline.scheme} step is exposed communication"
    return f"it needs {best.steps_to_target:,} steps instead of {baseline.steps_to_target:,}"


def _reason_against(best: Row, baseline: Row) -> str:
    """Say why a compressing scheme is not faster."""
    step_speedup = best.step_speedup or 0.0
    own_steps, steps = best.steps_to_target or 0, baseline.steps_to_target or 0
    if own_steps > TIE * steps and step_speedup > 1 / TIE:
        shorter = f", although its step is {faster_text(step_speedup, 'shorter', '')}" if step_speedup > TIE else ""
        return f"it needs {own_steps:,} steps instead of {steps:,}{shorter}"
    share = baseline.exposed_communication_s / baseline.step_s
    saved_s = baseline.exposed_communication_s - best.exposed_communication_s
    if share < 0.1:
        return f"only {format_percent(share)} of the {baseline.scheme} step is exposed communication"
    if saved_s <= 0:
        own, other = format_seconds(best.exposed_communication_s), format_seconds(baseline.exposed_communication_s)
        return f"it exposes {own} of communication a step, no less than the {other} of {baseline.scheme}"
    amount = "more than" if best.codec_s > saved_s else "nearly as much as"
    return (
        f"encoding and decoding cost {format_seconds(best.codec_s)} a step, "
        f"{amount} the {format_seconds(saved_s)} of exposed communication that they save"
    )


def _estimate(best: Row, factor: float, ratio: float) -> str:
    """Say how far an estimated cost could be off before the answer changes."""
    cost = f"its encode and decode cost ({best.cost_source})"
    if ratio > TIE:
        return f"; {cost} could be {significant(factor, 2)} times as high before the lead is lost"
    if 0 < factor < 1:
        return f"; {cost} would have to be below {significant(factor, 2)} times as high for a lead"
    return f"; {cost} rests on estimates"


def _also(comparison: Comparison, baseline: Row, best: Row, faster: list[Row], words: _ByTarget | _ByStep) -> str:
    """Name what ties with the best scheme, or is faster still but does harm."""
    texts = []
    for row in faster:
        lead = words.speed(row) / words.speed(best)
        if _harms(comparison, row, baseline) and lead > TIE:
            texts.append(f"; {row.scheme} is faster still, but its {_accuracy(comparison, row, baseline)}")
        elif row is not best and lead >= 1 / TIE and not _harms(comparison, row, baseline):
            texts.append(f"; {row.scheme} is as fast within 2 %")
    return "".join(texts)


def _harms(comparison: Comparison, row: Row, baseline: Row) -> bool:
    return harms(row.final_metric, baseline.final_metric, comparison.higher_is_better)


def harms(final_metric: float | None, baseline: float | None, higher_is_better: bool) -> bool:
    """Return whether a final metric is worse than the baseline's by more than chance would excuse."""
    if final_metric is None or baseline is None:
        return False
    gain = final_metric - baseline
    return (gain if higher_is_better else -gain) < -HARM * abs(baseline)


def _accuracy(comparison: Comparison, row: Row, baseline: Row) -> str:
    return accuracy(comparison.metric, row.final_metric, baseline.final_metric)


def accuracy(metric: str, final_metric: float | None, baseline: float | None) -> str:
    """Compare a scheme's final test metric with the baseline's, as in "final test accuracy is the same (91.6 %)"."""
    name = f"final test {metric}"
    if final_metric is None or baseline is None:
        return f"{name} is not known"
    own, other = (format_metric(value, metric) for value in (final_metric, baseline))
    if not is_share(metric):
        return f"{name} is the same ({own})" if own == other else f"{name} is {own} instead of {other}"
    points = 100 * (final_metric - baseline)
    if abs(points) < 0.05:
        return f"{name} is the same ({own})"
    return f"{name} is {abs(points):.1f} points {'higher' if points > 0 else 'lower'} ({own})"


def much_slower(ratio: float) -> bool:
    """Return whether a ratio of speeds reads better turned over."""
    return ratio < 1 / 1.1


def faster_text(ratio: float, faster: str, slower: str) -> str:
    """Write a ratio of speeds as ``6.2 times sooner`` or, near one, ``4 % sooner`` or ``4 % later``."""
    if ratio >= 1.1:
        return f"{significant(ratio, 2)} times {faster}"
    return f"{100 * (1 - 1 / ratio):.0f} % {faster}" if ratio >= 1 else f"{100 * (1 / ratio - 1):.0f} % {slower}"


def _wanted(comparison: Comparison) -> str:
    return wanted(comparison.target or 0.0, comparison.metric)


def wanted(target: float, metric: str) -> str:
    """Write a target as in "90 % validation accuracy"."""
    text = format_target(target, metric)
    return f"{text} validation {metric}" if is_share(metric) else f"a validation {metric} of {text}"


def _without_baseline(comparison: Comparison) -> str:
    """Say that there is nothing to compare with, and who was first all the same."""
    dense = [row for row in comparison.rows if row.uncompressed]
    why = " and ".join(f"{row.scheme} {row.status}" for row in dense) or "no uncompressed scheme (dense) was run"
    reached = [row for row in comparison.rows if row.completed and row.time_to_target_s is not None]
    if not reached:
        return f"Cannot say: {why}, so there is nothing to compare with."
    best = min(reached, key=lambda row: row.time_to_target_s or 0.0)
    first = f"{best.scheme} was the first to reach {_wanted(comparison)}, in {format_seconds(best.time_to_target_s)}"
    return f"Cannot say: {why}, so there is nothing to compare with; {first} of virtual time."


def _nobody(comparison: Comparison) -> str:
    """Say that the target was not reached, and who failed after having reached it."""
    fallen = [row for row in comparison.rows if not row.completed and row.time_to_target_s is not None]
    except_for = "".join(f", except that {row.scheme} did and then {row.status}" for row in fallen)
    return (
        f"No scheme reached the target of {_wanted(comparison)} in {comparison.steps} steps{except_for}, "
        "so the time to it decides nothing."
    )


def _only_compressed(comparison: Comparison, reached: list[Row]) -> str:
    """Advise a scheme that reached what no uncompressed one did."""
    best = min(reached, key=lambda row: row.time_to_target_s or 0.0)
    baseline = comparison.baseline
    assert baseline is not None
    return (
        f"Compress: {best.scheme} reaches {_wanted(comparison)} in {format_seconds(best.time_to_target_s)} of virtual "
        f"time, which no uncompressed scheme does in {comparison.steps} steps; "
        f"its {_accuracy(comparison, best, baseline)}."
    )
