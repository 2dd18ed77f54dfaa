"""The verdict of the explorer: one short sentence about the schemes at a point, as the report's page writes it too."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING

from .formatting import format_percent, format_seconds, significant
from .verdict import TIE, accuracy, faster_text, harms, much_slower, wanted

if TYPE_CHECKING:
    from .exploration import Goal, Row


def answer(rows: Sequence[Row], baseline: Row | None, goal: Goal) -> str:
    """Say whether to compress at a point.

    Schemes are compared by the time to the target; where there is none, or it is met before the first step, or nothing
    was trained, by the time of a step.
    """
    return _answer(rows, baseline, goal) + (f" ({goal.proxy})" if goal.proxy else "")


def _answer(rows: Sequence[Row], baseline: Row | None, goal: Goal) -> str:
    rivals = [row for row in rows if not row.uncompressed]
    if baseline is None:
        dense = any(row.uncompressed for row in rows)
        why = "no uncompressed scheme trained to the end" if dense else "there is no uncompressed scheme (dense)"
        return f"Cannot say: {why}, so there is nothing to compare with."
    if not rivals:
        return f"Nothing to decide: there is no compressing scheme beside {baseline.scheme}."
    survivors = [row for row in rivals if not row.failure]
    if not survivors:
        return "Do not compress: no compressing scheme trained to the end."
    trained = [row for row in survivors if row.seeds]
    if not trained or not baseline.seeds:
        return _by_steps_alone(survivors, baseline)
    unknown = [row.scheme for row in survivors if not row.seeds]
    rest = f" Not trained here: {', '.join(unknown)}." if unknown else ""
    if goal.target is None or any(row.steps_to_target == 0 for row in rows):
        return _decide(trained, baseline, goal, by_target=False) + rest
    return _by_target(trained, baseline, goal, goal.target) + rest


def _by_target(trained: Sequence[Row], baseline: Row, goal: Goal, target: float) -> str:
    """Compare times to the target where somebody reached it."""
    reached = [row for row in trained if row.time_to_target_s is not None]
    every = " with every seed" if max(baseline.seeds, *(row.seeds for row in trained)) > 1 else ""
    what = wanted(target, goal.metric)
    if baseline.time_to_target_s is not None and reached:
        return _decide(reached, baseline, goal, by_target=True)
    if baseline.time_to_target_s is not None:
        time = format_seconds(baseline.time_to_target_s)
        return f"Do not compress: no compressing scheme reached {what}{every}, which {baseline.scheme} does in {time}."
    if not reached:
        return f"No scheme reached {what}{every}, so the time to it decides nothing."
    best = min(reached, key=lambda row: row.time_to_target_s or 0.0)
    remark = accuracy(goal.metric, best.final_metric, baseline.final_metric)
    return f"Compress: {_claim(best, goal, by_target=True)}, which no uncompressed scheme does{every}; its {remark}."


def _by_steps_alone(rivals: Sequence[Row], baseline: Row) -> str:
    """Compare steps where nothing is known of what they achieve."""
    best = max(rivals, key=lambda row: row.step_speedup or 0.0)
    ratio = best.step_speedup or 0.0
    text = f"Not trained here, so only steps are compared: {_step_claim(best)}"
    if 1 / TIE <= ratio <= TIE:
        return f"{text}, within 2 % of {baseline.scheme}."
    text = f"{text}, {_relation(ratio, baseline, by_target=False)}"
    if ratio > 1:
        return f"{text}; it could take {significant(ratio)} times as many steps before that lead is lost."
    return f"{text}; it would have to take {significant(ratio)} times as many steps, or fewer, to be as soon."


def _decide(rivals: Sequence[Row], baseline: Row, goal: Goal, by_target: bool) -> str:
    """Pick the rival to speak of and compose the sentence."""

    def speed(row: Row) -> float:
        return (row.speedup if by_target else row.step_speedup) or 0.0

    ranked = sorted(rivals, key=speed, reverse=True)
    faster = [row for row in ranked if speed(row) > TIE]
    harmless = [row for row in faster if not harms(row.final_metric, baseline.final_metric, goal.higher_is_better)]
    best = (harmless or ranked)[0]
    ratio = speed(best)
    claim = _claim(best, goal, by_target)
    remark = accuracy(goal.metric, best.final_metric, baseline.final_metric)
    if not faster and ratio >= 1 / TIE:
        return f"It makes no difference: {claim}, within 2 % of {baseline.scheme}; its {remark}."
    reason = _reason_to_compress(best, baseline) if faster else _reason_against(best, baseline)
    text = f"{claim}, {_relation(ratio, baseline, by_target)}, because {reason}; its {remark}."
    if harmless:
        return f"Compress: {text}"
    if faster:
        return f"Compress only if a worse model will do: {text}"
    return f"Do not compress: {'' if len(rivals) == 1 else 'at best, '}{text}"


def _claim(row: Row, goal: Goal, by_target: bool) -> str:
    if not by_target:
        return _step_claim(row)
    what = wanted(goal.target or 0.0, goal.metric)
    return f"{row.scheme} reaches {what} in {format_seconds(row.time_to_target_s)} of virtual time"


def _step_claim(row: Row) -> str:
    return f"a step with {row.scheme} takes {format_seconds(row.step_s)} of virtual time"


def _relation(ratio: float, baseline: Row, by_target: bool) -> str:
    """Say how a scheme stands to the baseline."""
    if by_target and much_slower(ratio):
        return f"{significant(1 / ratio, 2)} times as long as {baseline.scheme} takes"
    if by_target:
        return f"{faster_text(ratio, 'sooner', 'later')} than {baseline.scheme}"
    if much_slower(ratio):
        return f"{significant(1 / ratio, 2)} times as long as with {baseline.scheme}"
    return f"{faster_text(ratio, 'shorter', 'longer')} than with {baseline.scheme}"


def _reason_to_compress(best: Row, baseline: Row) -> str:
    """Say what the faster scheme saves: steps, or the communication that its steps need not wait for."""
    if (baseline.steps_to_target or 0) / (best.steps_to_target or 1) <= (best.step_speedup or 0.0):
        share = baseline.phases_s[-1] / baseline.step_s
        return f"{format_percent(share)} of the {baseline.scheme} step is exposed communication"
    return _steps_instead(best, baseline)


def _reason_against(best: Row, baseline: Row) -> str:
    """Say why a compressing scheme is not faster."""
    own, other = best.steps_to_target or 0, baseline.steps_to_target or 0
    if own > TIE * other and (best.step_speedup or 0.0) > 1 / TIE:
        return _steps_instead(best, baseline)
    share = baseline.phases_s[-1] / baseline.step_s
    if share < 0.1:
        return f"only {format_percent(share)} of the {baseline.scheme} step is exposed communication"
    saved_s = baseline.phases_s[-1] - best.phases_s[-1]
    if saved_s <= 0:
        return f"it exposes {format_seconds(best.phases_s[-1])} of communication a step, no less than {baseline.scheme}"
    codec_s = best.phases_s[2] + best.phases_s[3]
    return (
        f"encoding and decoding cost {format_seconds(codec_s)} a step, and save {format_seconds(saved_s)} of exposed "
        "communication"
    )


def _steps_instead(best: Row, baseline: Row) -> str:
    own, other = (floor((row.steps_to_target or 0) + 0.5) for row in (best, baseline))
    return f"it needs {own:,} steps instead of {other:,}"
