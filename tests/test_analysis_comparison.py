"""Numbers of a comparison against hand calculation, its baseline and notes, and what becomes summary.json."""

import json

import numpy as np
import pytest
import xarray as xr

from gradwire.analysis.comparison import compare, first_at_target, is_uncompressed
from gradwire.analysis.summary import summary

from .test_analysis_data import BF16, DENSE, TOPK, scheme, synthetic


@pytest.fixture
def by_hand():
    """Return two schemes over four steps, with numbers simple enough to do in one's head."""
    per_step = {
        "sent_bytes": [[400, 400, 400, 400], [10, 20, 30, 40]],
        "forward_s": [[1, 1, 1, 1], [1, 1, 1, 1]],
        "backward_s": [[2, 2, 2, 2], [2, 2, 2, 2]],
        "optimizer_s": [[1, 1, 1, 1], [1, 1, 1, 1]],
        "encode_s": [[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]],
        "decode_s": [[0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]],
        "exposed_communication_s": [[6, 6, 6, 6], [0, 0.25, 0.25, 0.5]],
        "communication_s": [[8, 8, 8, 8], [1, 1, 1, 1]],
        "step_s": [[10, 10, 10, 10], [4.75, 5, 5, 5.25]],
        "end_s": [[10, 20, 30, 40], [4.75, 9.75, 14.75, 20]],
        "train_loss": [[4, 3, 2, 1], [4, 3, 3, 2]],
        "learning_rate": [[0.1] * 4] * 2,
    }
    per_evaluation = {
        "validation_metric": [[0.1, 0.9, 0.95], [0.1, 0.85, 0.91]],
        "test_metric": [[0.1, 0.8, 0.94], [0.1, 0.8, 0.90]],
        "validation_loss": [[5, 2, 1], [5, 3, 2]],
        "test_loss": [[5, 2, 1], [5, 3, 2]],
        "evaluation_s": [[0, 20, 40], [0, 9.75, 20]],
    }
    return xr.Dataset(
        {name: (("scheme", "step"), np.array(values, float)) for name, values in per_step.items()}
        | {name: (("scheme", "evaluation"), np.array(values, float)) for name, values in per_evaluation.items()}
        | {
            "completed_steps": ("scheme", [4, 4]),
            "status": ("scheme", ["completed", "completed"]),
            "cost_source": ("scheme", ["none", "given"]),
        },
        {"scheme": [DENSE, TOPK], "step": [1, 2, 3, 4], "evaluated_step": ("evaluation", [0, 2, 4])},
        {"metric": "accuracy", "higher_is_better": 1, "target": 0.9, "experiment": "", "parameters": 100},
    )


def test_rows_are_what_one_calculates_by_hand(by_hand):
    dense, topk = compare(by_hand).rows
    assert (dense.sent_bytes, dense.compute_s, dense.codec_s) == (400, 4, 0)
    assert (dense.exposed_communication_s, dense.step_s) == (6, 10)
    assert (dense.steps_to_target, dense.time_to_target_s, dense.final_metric) == (2, 20, 0.94)
    assert (topk.sent_bytes, topk.compute_s, topk.codec_s) == (25, 4, 0.75)
    assert (topk.exposed_communication_s, topk.step_s) == (0.25, 5)
    assert (topk.steps_to_target, topk.time_to_target_s, topk.final_metric) == (4, 20, 0.90)
    assert (dense.speedup, dense.step_speedup) == (1, 1)
    assert (topk.speedup, topk.step_speedup) == (1, 2)
    assert (dense.uncompressed, topk.uncompressed) == (True, False)
    assert (topk.completed_steps, topk.status, topk.cost_source) == (4, "completed", "given")


def test_the_target_is_met_by_the_validation_metric_in_its_direction(by_hand):
    loss_like = by_hand.assign(validation_metric=1 - by_hand["validation_metric"])
    loss_like.attrs |= {"metric": "suboptimality", "higher_is_better": 0, "target": 0.16}
    assert [row.steps_to_target for row in compare(loss_like).rows] == [2, 2]
    loss_like.attrs["target"] = 0.1 - 1e-9
    assert [row.steps_to_target for row in compare(loss_like).rows] == [4, 4]
    loss_like.attrs["target"] = float(loss_like["validation_metric"][0, 1])
    assert compare(loss_like).rows[0].steps_to_target == 2
    by_hand.attrs["target"] = 0.94
    assert [row.steps_to_target for row in compare(by_hand).rows] == [4, None]
    assert first_at_target(by_hand.isel(scheme=0)) == 2
    del by_hand.attrs["target"]
    assert [row.steps_to_target for row in compare(by_hand).rows] == [None, None]


def test_means_run_over_completed_steps_only(by_hand):
    by_hand["completed_steps"][1] = 2
    by_hand["status"] = ("scheme", ["completed", "diverged at step 2: loss is nan"])
    for name in ("sent_bytes", "step_s", "encode_s"):
        by_hand[name][1, 2:] = np.nan
    by_hand["test_metric"][1, 2] = np.nan
    topk = compare(by_hand).rows[1]
    assert (topk.sent_bytes, topk.step_s, topk.codec_s) == (15, 4.875, 0.75)
    assert topk.final_metric is None
    assert (topk.completed, topk.failure) == (False, "diverged at step 2")


def test_a_scheme_without_completed_steps_has_no_means(by_hand):
    by_hand["completed_steps"][1] = 0
    topk = compare(by_hand).rows[1]
    assert np.isnan([topk.sent_bytes, topk.step_s]).all()
    assert topk.step_speedup is None


def test_the_baseline_is_the_uncompressed_scheme_that_is_first_at_the_target():
    run = synthetic({DENSE: scheme(exposed_s=0.01, rate=0.02), BF16: scheme(exposed_s=0.02, rate=0.1), TOPK: scheme()})
    comparison = compare(run)
    assert comparison.baseline.scheme == BF16
    assert comparison.baseline == comparison.rows[1]
    own, best = comparison.rows[2], comparison.baseline
    assert own.speedup == best.time_to_target_s / own.time_to_target_s < 1


def test_the_baseline_has_the_fastest_step_where_no_uncompressed_scheme_is_at_the_target():
    slow = {DENSE: scheme(exposed_s=0.01, top=0.8), BF16: scheme(exposed_s=0.02, top=0.85)}
    comparison = compare(synthetic({**slow, TOPK: scheme(exposed_s=0.03)}))
    assert comparison.baseline.scheme == DENSE
    topk = comparison.rows[2]
    assert topk.time_to_target_s is not None
    assert topk.speedup is None
    assert topk.step_speedup == pytest.approx(0.024 / 0.044)


def test_a_diverged_scheme_is_no_baseline():
    comparison = compare(synthetic({DENSE: scheme(exposed_s=0.001, diverged=150), BF16: scheme(), TOPK: scheme()}))
    assert comparison.rows[0].steps_to_target == 60
    assert comparison.baseline.scheme == BF16
    alone = compare(synthetic({DENSE: scheme(diverged=30), TOPK: scheme()}))
    assert alone.baseline is None
    assert alone.rows[1].speedup is alone.rows[1].step_speedup is None
    assert "No uncompressed scheme completed, so there are no speed-ups." in alone.notes
    assert f"{DENSE} diverged at step 31: loss is nan." in alone.notes


def test_without_an_uncompressed_scheme_there_are_no_speedups():
    comparison = compare(synthetic({TOPK: scheme(), "ef(dense(dtype=bf16))": scheme()}))
    assert comparison.baseline is None
    assert [(row.speedup, row.step_speedup) for row in comparison.rows] == [(None, None), (None, None)]
    assert "No uncompressed scheme (dense) was run, so there are no speed-ups." in comparison.notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dense", True),
        (BF16, True),
        ("ef(dense(dtype=bf16))", False),
        ("densest(dtype=bf16)", False),
        ("<b>dense</b>", False),
        (TOPK, False),
    ],
)
def test_only_a_plain_dense_is_uncompressed(text, expected):
    assert is_uncompressed(text) is expected


def test_a_target_that_the_untrained_model_meets_gives_no_speedup():
    comparison = compare(synthetic({DENSE: scheme(), TOPK: scheme()}, target=0.05))
    assert [(row.steps_to_target, row.time_to_target_s, row.speedup) for row in comparison.rows] == [(0, 0, None)] * 2
    assert "The target of 5 % is met before the first step: times to it say nothing." in comparison.notes


def test_notes_say_what_limits_the_numbers():
    schemes = {
        DENSE: scheme(cost_source="roofline estimate"),
        TOPK: scheme(codec_s=0.001, cost_source="roofline estimate"),
        "qsgd(bits=4)": scheme(codec_s=0.001, cost_source="published figure"),
        "powersgd(rank=2)": scheme(codec_s=0.001, top=0.5, cost_source="figure of another device, scaled"),
    }
    assert compare(synthetic(schemes)).notes == (
        "powersgd(rank=2) did not reach 90 % in 200 steps.",
        "Times to the target are rounded up to the next evaluation, up to 20 steps later.",
        "The cost of encoding and decoding rests on estimates for powersgd(rank=2): figure of another device, scaled.",
        f"The cost of encoding and decoding rests on estimates for {TOPK}: roofline estimate.",
        "Each scheme was trained once, from one seed: small differences of the metric may be chance.",
    )


def test_notes_without_a_target_and_with_an_evaluation_after_every_step():
    assert compare(synthetic({DENSE: scheme()}, target=None)).notes == (
        "No target was set, so only steps are compared, not the time to reach an accuracy.",
        "Each scheme was trained once, from one seed: small differences of the metric may be chance.",
    )
    assert not any("rounded up" in note for note in compare(synthetic({DENSE: scheme()}, every=1)).notes)


def sorted_everywhere(value):
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(sorted_everywhere, value.values()))
    return all(map(sorted_everywhere, value)) if isinstance(value, list) else True


def test_the_summary_is_strict_json_with_all_numbers_unrounded():
    run = synthetic(
        {DENSE: scheme(exposed_s=0.1 / 3), TOPK: scheme(diverged=0)}, workers=np.int64(8), parameters=np.int64(1000)
    )
    content = summary(compare(run), run)
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text) == content
    assert sorted_everywhere(content)
    assert (content["workers"], content["parameters"], content["steps"]) == (8, 1000, 200)
    assert content["versions"] == {"gradwire": "0.1.0", "torch": "2.9.0"}
    assert content["baseline"] == DENSE
    dense, topk = content["schemes"]
    assert dense["exposed_communication_s"] == pytest.approx(0.1 / 3, rel=1e-15)
    assert dense["step_s"] == float(run["step_s"][0].mean())
    assert [topk[name] for name in ("step_s", "final_metric", "speedup", "time_to_target_s")] == [None] * 4
    assert content["verdict"].startswith("Do not compress: no compressing scheme trained to the end;")


def test_the_summary_is_the_same_for_the_same_run():
    texts = set()
    for _ in range(2):
        run = synthetic({DENSE: scheme(), TOPK: scheme(exposed_s=0.001)})
        texts.add(json.dumps(summary(compare(run), run)))
    assert len(texts) == 1


def test_the_summary_of_a_run_that_knows_little_has_nulls():
    run = synthetic({TOPK: scheme()}, target=None)
    del run.attrs["cluster"]
    content = summary(compare(run), run)
    assert content["target"] is content["cluster"] is content["baseline"] is None
