"""Explorations: rows against timelines played by the event engine, means and choices by hand, and the words."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gradwire.analysis.comparison import PHASES
from gradwire.analysis.exploration import Candidate, Curve, Goal, Point, Row, explore, reason_against
from gradwire.analysis.exploration_verdict import answer
from gradwire.analysis.report.explorer import explorer_html
from gradwire.analysis.report.export import exported
from gradwire.compressors.errors import InputError
from gradwire.sim.cluster.cluster import make_cluster as make_from_keys
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline

from .explorations import (
    BF16,
    DENSITIES,
    FP32,
    GOAL,
    ROUNDS,
    START,
    STEPS,
    TOPK,
    WORKERS,
    WORKLOAD,
    candidates,
    curve,
    summed,
)
from .explorations import plan as plan_of
from .toysteps import DEVICE, make_cluster, parse


@pytest.fixture(scope="module")
def grid():
    return candidates()


def at(point, **changes):
    return replace(point, **changes)


def logs(plan):
    return [plan.graphs[i].logs[row] for i, row in zip(plan.graph, plan.row, strict=True)]


def by_events(plan, point, codec):
    """Play every transfer of a plan's steps on a cluster of the point's numbers: another implementation."""
    cluster = make_cluster(point.bandwidth_bps, point.latency_s, point.launch_s)
    options = StepOptions(engine="events", codec=codec)
    overhead = Overhead(factor=point.factor)
    return timeline(logs(plan), (0, 1), WORKLOAD, cluster, overhead, DEVICE, options, parse=parse)


@pytest.mark.parametrize(
    ("bandwidth_bps", "latency_s", "factor"), [(1e8, 5e-6, 0.0), (1e9, 50e-6, 1.0), (3e10, 1e-3, 4.0)]
)
def test_rows_are_what_the_event_engine_plays(grid, bandwidth_bps, latency_s, factor):
    point = Point(bandwidth_bps, latency_s, 20e-6, factor, 0.1, 8)
    rows = {row.scheme: row for row in explore(grid, point, **GOAL).rows}
    assert set(rows) == {FP32, BF16, TOPK, ROUNDS}
    for candidate in (one for one in grid if one.workers == 8 and one.density in (None, 0.1)):
        row, codec = rows[candidate.scheme], "stream" if candidate.scheme == ROUNDS else "compute"
        played = [[by_events(plan, point, codec) for plan in plans] for plans in candidate.variants]
        fastest = min(played, key=lambda runs: np.mean([run.step_s.mean() for run in runs]))
        assert row.step_s == pytest.approx(np.mean([run.step_s.mean() for run in fastest]), rel=1e-9)
        expected = [np.mean([getattr(run, name).mean() for run in fastest]) for name in PHASES.values()]
        np.testing.assert_allclose(row.phases_s, expected, rtol=1e-9, atol=1e-15)
        ends = [np.concatenate([[0.0], run.end_s]) for run in fastest]
        steps = candidate.curves[0].steps
        np.testing.assert_allclose(row.evaluation_s, np.mean([end[steps] for end in ends], axis=0), rtol=1e-9)
        np.testing.assert_allclose(row.metric, np.mean([one.metric for one in candidate.curves], axis=0))
        first = [
            next(step for step, value in zip(steps, one.metric, strict=True) if value >= 0.9)
            for one in candidate.curves
        ]
        assert row.steps_to_target == np.mean(first)
        assert row.time_to_target_s == pytest.approx(
            np.mean([end[n] for end, n in zip(ends, first, strict=True)]), rel=1e-9
        )
        assert (row.seeds, row.reached, row.failure) == (2, 2, "")


def test_speed_ups_are_over_the_best_uncompressed_scheme(grid):
    found = explore(grid, at(START, density=0.1, workers=8), **GOAL)
    rows = {row.scheme: row for row in found.rows}
    assert found.baseline == BF16
    for row in rows.values():
        assert row.speedup == pytest.approx(rows[BF16].time_to_target_s / row.time_to_target_s)
        assert row.step_speedup == pytest.approx(rows[BF16].step_s / row.step_s)


def test_the_fastest_way_to_cut_a_baseline_depends_on_the_point(grid):
    """Two messages overlap with the backward pass, but pay the latency twice."""
    one, two = next(each for each in grid if each.scheme == FP32 and each.workers == 4).variants
    for latency_s, fastest in ((1e-6, two), (1e-2, one)):
        point = at(START, latency_s=latency_s)
        row = next(row for row in explore(grid, point, **GOAL).rows if row.scheme == FP32)
        own = [plans[0].run_s(1e9, latency_s, 20e-6) / STEPS for plans in (one, two)]
        assert row.step_s == pytest.approx(min(own))
        assert min(own) == fastest[0].run_s(1e9, latency_s, 20e-6) / STEPS


def test_where_nothing_was_trained_only_steps_are_known(grid):
    for row in explore(grid, START, **GOAL).rows:
        assert (row.seeds, row.metric, row.evaluation_s, row.final_metric) == (0, (), (), None)
        assert row.time_to_target_s is row.steps_to_target is row.speedup is None
        assert row.step_s > 0
        assert row.step_speedup > 0


def test_a_target_counts_where_every_seed_reached_it(grid):
    row = next(row for row in explore(grid, at(START, workers=8), **GOAL).rows if row.scheme == TOPK)
    assert (row.reached, row.seeds, row.time_to_target_s, row.speedup) == (1, 2, None, None)


def test_what_a_seed_that_failed_leaves_is_said_and_averaged_as_far_as_all_came(grid):
    row = next(row for row in explore(grid, at(START, workers=2), **GOAL).rows if row.scheme == ROUNDS)
    assert row.failure == "1 of 2 seeds failed"
    assert len(row.metric) == len(row.evaluation_s) == 3
    assert row.final_metric is None


def test_curves_end_at_the_first_value_that_is_not_finite():
    one = plan_of([(summed(0, 1000, 2),)] * 8)
    bad = Curve(np.array([0, 4, 8]), np.array([0.1, np.nan, 0.95]), "diverged at step 5: loss is nan", None)
    scheme = Candidate(TOPK, False, None, 2, ((one,),), (bad,))
    row = explore([scheme], at(START, workers=2), **GOAL).rows[0]
    assert (row.metric, row.steps_to_target, row.failure) == ((0.1,), None, "diverged at step 5")


def test_a_run_without_a_step_has_no_time():
    none = plan_of([])
    failed = Curve(np.array([0]), np.array([0.1]), "diverged at step 1: loss is nan", None)
    dense = Candidate(FP32, True, None, 2, ((plan_of([(summed(0, 1000, 2),)] * STEPS),),), (curve(0.2, 0),))
    scheme = Candidate(TOPK, False, None, 2, ((none,),), (failed,))
    found = explore([dense, scheme], at(START, workers=2), **GOAL)
    assert np.isnan(found.rows[1].step_s)
    assert found.rows[1].step_speedup is None
    assert found.verdict == "Do not compress: no compressing scheme trained to the end."


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pieces": [{"from": "0 B", "latency": "1 ms"}]}, "cluster.pieces"),
        ({"gpus": 2, "intra": {"bandwidth": "100 Gbit/s", "latency": "1 us"}}, "cluster.gpus = 2"),
        ({"background": [{"from": "host0", "to": "host1"}]}, "background"),
    ],
)
def test_there_is_no_exploration_without_a_closed_form_and_the_reason_is_said(keys, words):
    cluster = make_from_keys({"bandwidth": "8 Gbit/s", "latency": "5 us", "launch": "2 us", **keys})
    scheme = Candidate(FP32, True, None, 4, ((plan_of([(summed(0, 1000, 4),)] * STEPS, cluster),),), ())
    assert words in reason_against([scheme])
    with pytest.raises(InputError, match=words):
        explore([scheme], START, **GOAL)
    html = explorer_html([scheme], start=START, **GOAL)
    assert words in html
    assert "<script" not in html


def test_a_start_where_there_is_no_scheme_is_refused(grid):
    for start in (at(START, workers=3), at(START, density=0.5), at(START, density=None)):
        with pytest.raises(ValueError, match="start = Point"):
            explorer_html(grid, start=start, **GOAL)


def test_a_candidate_needs_a_plan_for_each_curve():
    one = plan_of([(summed(0, 1000, 2),)] * STEPS)
    with pytest.raises(ValueError, match="each variant must have a plan for each of 2 curves"):
        Candidate(FP32, True, None, 2, ((one, one), (one,)), (curve(0.2, 0), curve(0.2, 1)))


def test_exported_data_hold_equal_things_once(grid):
    data = exported(grid)
    assert len(data["candidates"]) == len(grid)
    json.dumps(data, allow_nan=False)
    for name in ("tasks", "costs", "plans", "curves"):
        texts = [json.dumps(value) for value in data[name]]
        assert len(set(texts)) == len(texts)
    both = next(one for one in data["candidates"] if one["scheme"] == FP32)["variants"]
    assert both[0][0] == both[0][1] != both[1][0]
    assert data["plans"][both[0][0]]["steps"] == [[0, STEPS]]


def test_exported_steps_are_those_of_the_plan(grid):
    data = exported(grid)
    for one, out in zip(grid, data["candidates"], strict=True):
        for plans, places in zip(one.variants, out["variants"], strict=True):
            for plan, place in zip(plans, places, strict=True):
                first = np.cumsum([0, *(len(graph.logs) for graph in plan.graphs)])
                steps = [log for log, times in data["plans"][place]["steps"] for _ in range(times)]
                assert steps == (first[plan.graph] + plan.row).tolist()


# --------------------------------------------------------------------------------------------------- the verdict


def row(scheme="topk", step_s=1.0, steps=100.0, final=0.9, exposed_s=0.5, codec_s=0.1, **changes):
    rest_s = step_s - exposed_s - codec_s
    phases_s = (rest_s, 0.0, codec_s, 0.0, 0.0, exposed_s)
    time = None if steps is None else steps * step_s
    values = {"seeds": 1, "reached": int(steps is not None), "failure": "", "evaluation_s": (), "metric": ()}
    return Row(
        scheme,
        scheme == "dense",
        **(
            values
            | {
                "phases_s": phases_s,
                "step_s": step_s,
                "steps_to_target": steps,
                "time_to_target_s": time,
                "final_metric": final,
            }
            | changes
        ),
    )


DENSE = row("dense", step_s=2.0, exposed_s=1.5, codec_s=0.0)
TO_90 = "reaches 90 % validation accuracy in"
SAME = "final test accuracy is the same (90.0 %)"


def ask(*rivals, baseline=DENSE, target=0.9, metric="accuracy", proxy=None):
    """The verdict on rivals, whose speed-ups are worked out here."""
    base = baseline or SimpleNamespace(step_s=np.nan, time_to_target_s=None)
    done = []
    for one in rivals:
        known = one.time_to_target_s and base.time_to_target_s is not None
        speedup = base.time_to_target_s / one.time_to_target_s if known else None
        done.append(replace(one, speedup=speedup, step_speedup=base.step_s / one.step_s))
    dense = [] if baseline is None else [replace(baseline, speedup=1.0, step_speedup=1.0)]
    return answer([*dense, *done], dense[0] if dense else None, Goal(metric, True, target, proxy))


@pytest.mark.parametrize(
    ("rivals", "words"),
    [
        (
            [row()],
            (
                f"Compress: topk {TO_90} 100 s of virtual time, 2.0 times sooner than dense, because 75 % of the dense "
                f"step is exposed communication; its {SAME}."
            ),
        ),
        (
            [row(step_s=2.0, steps=50.0)],
            (
                f"Compress: topk {TO_90} 100 s of virtual time, 2.0 times sooner than dense, "
                f"because it needs 50 steps instead of 100; its {SAME}."
            ),
        ),
        (
            [row(final=0.8)],
            (
                f"Compress only if a worse model will do: topk {TO_90} 100 s of virtual time, 2.0 times sooner "
                "than dense, because 75 % of the dense step is exposed communication; its final test accuracy is 10.0 "
                "points lower (80.0 %)."
            ),
        ),
        ([row(), row("randomk", step_s=0.5, exposed_s=0.2, final=0.8)], f"Compress: topk {TO_90} 100 s"),
        (
            [row(step_s=2.0)],
            f"It makes no difference: topk {TO_90} 3.33 min of virtual time, within 2 % of dense; its {SAME}.",
        ),
        (
            [row(step_s=2.1, codec_s=0.9)],
            (
                f"Do not compress: topk {TO_90} 3.50 min of virtual time, 5 % later than dense, because "
                f"encoding and decoding cost 900 ms a step, and save 1.00 s of exposed communication; its {SAME}."
            ),
        ),
        (
            [row(step_s=4.0, exposed_s=1.5)],
            (
                f"Do not compress: topk {TO_90} 6.67 min of virtual time, 2.0 times as long as "
                f"dense takes, because it exposes 1.50 s of communication a step, no less than dense; its {SAME}."
            ),
        ),
        (
            [row(steps=300.0), row("randomk", steps=400.0)],
            (
                f"Do not compress: at best, topk {TO_90} 5.00 min of virtual "
                f"time, 1.5 times as long as dense takes, because it needs 300 steps instead of 100; its {SAME}."
            ),
        ),
        (
            [row(steps=None)],
            "Do not compress: no compressing scheme reached 90 % validation accuracy, which dense does in 3.33 min.",
        ),
        ([row(failure="diverged at step 3")], "Do not compress: no compressing scheme trained to the end."),
        ([], "Nothing to decide: there is no compressing scheme beside dense."),
        ([row(), row("randomk", seeds=0, steps=None, final=None)], "(90.0 %). Not trained here: randomk."),
    ],
)
def test_the_verdict_by_times_to_the_target(rivals, words):
    assert words in ask(*rivals)


def test_the_verdict_where_no_uncompressed_scheme_reached_the_target():
    dense = replace(DENSE, steps_to_target=None, time_to_target_s=None, reached=0)
    assert ask(row(), baseline=dense) == (
        f"Compress: topk {TO_90} 100 s of virtual time, which no uncompressed scheme does; its {SAME}."
    )
    seeds = replace(dense, seeds=3, reached=2)
    words = "No scheme reached 90 % validation accuracy with every seed, so the time to it decides nothing."
    assert ask(row(steps=None), baseline=seeds) == words


def test_the_verdict_without_anything_to_compare_with():
    assert ask(row(), baseline=None).startswith("Cannot say: there is no uncompressed scheme (dense), so")
    failed = replace(DENSE, failure="diverged at step 2")
    text = answer([failed, row()], None, Goal("accuracy", True, 0.9, None))
    assert text.startswith("Cannot say: no uncompressed scheme trained to the end, so")


def test_the_verdict_by_steps_where_there_is_no_target_to_reach():
    expected = (
        "Compress: a step with topk takes 1.00 s of virtual time, 2.0 times shorter than with dense, because 75 % of "
        f"the dense step is exposed communication; its {SAME}."
    )
    assert ask(row(), target=None) == expected
    assert ask(row(), row("randomk", step_s=5.0, steps=0.0)) == expected


@pytest.mark.parametrize(
    ("step_s", "words"),
    [
        (1.0, "2.0 times shorter than with dense; it could take 2.00 times as many steps before that lead is lost."),
        (
            4.0,
            "as long as with dense; it would have to take 0.500 times as many steps, or fewer, to be as soon.",
        ),
        (2.01, "within 2 % of dense."),
    ],
)
def test_the_verdict_where_nothing_was_trained(step_s, words):
    untrained = row(step_s=step_s, seeds=0, steps=None, final=None)
    text = ask(untrained)
    assert text.startswith("Not trained here, so only steps are compared: a step with topk takes ")
    assert text.endswith(words)
    assert ask(row(step_s=step_s), baseline=replace(DENSE, seeds=0, time_to_target_s=None)).endswith(words)


def test_a_proxy_is_marked_as_one():
    assert ask(row(), proxy="proxy: trained on digits, timed as bert").endswith(
        " (proxy: trained on digits, timed as bert)"
    )


def test_there_is_a_verdict_at_every_point(grid):
    for density, workers, bandwidth_bps in itertools.product(DENSITIES, WORKERS, (1e8, 1e10)):
        point = at(START, density=density, workers=workers, bandwidth_bps=bandwidth_bps)
        found = explore(grid, point, **GOAL)
        assert len(found.rows) == 4
        assert found.verdict.startswith("Not trained here") == (workers == 4 or (workers, density) == (2, 0.03))
