"""The answer of a sweep, from arrays made up so that it is known."""

import numpy as np
import pytest
import xarray as xr

from gradwire.analysis.sweep.answer import answer
from gradwire.analysis.sweep.baseline import with_baseline
from gradwire.analysis.sweep.summary import sweep_summary, sweep_table

LABELS = ["dense(dtype=fp32)", "ef(topk(density))", "qsgd(bits=4)"]


def made_up(times, final=None, **attrs):
    """Return a sweep's dataset.

    Parameters
    ----------
    times : array, shape [scheme, density, bandwidth]
        Of the target.
    final : array, shape [scheme, density]
        Final metrics.
    """
    times = np.asarray(times, float)[..., None].repeat(2, axis=-1)
    final = np.full(times.shape[:2], 0.9) if final is None else np.asarray(final, float)
    learnt, timed = ("scheme", "density", "seed"), ("scheme", "density", "bandwidth", "seed")
    wide = final[..., None].repeat(2, axis=-1)
    data = xr.Dataset(
        {
            "time_to_target_s": (timed, times),
            "step_s": (timed, times / 100),
            "run_s": (timed, times * 2),
            "bucket_bytes": (timed, np.full(times.shape, 2.0**20)),
            "steps_to_target": (learnt, np.where(np.isnan(times[:, :, 0]), np.nan, 100.0)),
            "final_metric": (learnt, wide),
            "sent_bytes": (learnt, np.full(wide.shape, 1e6)),
            "learning_rate": (learnt, np.full(wide.shape, 0.1)),
            "status": (learnt, np.full(wide.shape, "completed", dtype=object)),
        },
        coords={
            "scheme": np.array(LABELS, dtype=object),
            "density": ("density", [0.01, 0.1], {"key": "scheme.density", "units": "1"}),
            "bandwidth": ("bandwidth", [1e9, 1e10, 1e11], {"key": "cluster.bandwidth", "units": "bit/s"}),
            "seed": ("seed", [0, 1], {"key": "training.seed"}),
            "cost_source": ("scheme", np.array(["none", "roofline estimate", "given"], dtype=object)),
        },
        attrs={"axes": ["density", "bandwidth", "seed"], "metric": "accuracy", "higher_is_better": 1, "target": 0.9,
               "task": "mnist", **attrs},
    )  # fmt: skip
    return with_baseline(data)


DENSE = [[8, 4, 2], [8, 4, 2]]
TOPK = [[1, 2, 4], [2, 3, 4]]
QSGD = [[4, 3.9, 3], [4, 3.9, 3]]


def test_it_says_where_compression_pays_by_how_much_and_with_what():
    found = answer(made_up([DENSE, TOPK, QSGD]))
    assert (found.settings, found.pays) == (3, 2)
    assert found.sentence == (
        "Compress at 2 of the 3 settings (bandwidth): a compressing scheme that does no harm can reach 90 % validation "
        "accuracy 2.0 to 8.0 times sooner than the best uncompressed one, most often ef(topk(density=0.01)) (2 of 2); "
        "it pays at every setting up to 10 Gbit/s and at none from 100 Gbit/s on."
    )
    assert [row.name for row in found.rows] == [
        "dense(dtype=fp32)", "ef(topk(density=0.01))", "ef(topk(density=0.1))", "qsgd(bits=4)",
    ]  # fmt: skip
    assert [row.pays for row in found.rows] == [0, 2, 2, 2]
    assert (found.rows[1].slowest, found.rows[1].fastest) == pytest.approx((0.5, 8))
    assert "Costs of encoding and decoding rest on estimates: roofline estimate." in found.notes


def test_a_scheme_that_harms_is_not_counted():
    found = answer(made_up([DENSE, TOPK, QSGD], final=[[0.9, 0.9], [0.8, 0.895], [0.9, 0.9]]))
    assert [row.harms for row in found.rows] == [False, True, False, False]
    assert "1.3 to 4.0 times sooner" in found.sentence
    assert "ef(topk(density=0.1)) (2 of 2)" in found.sentence
    assert any("ef(topk(density=0.01))" in note and "worse final accuracy" in note for note in found.notes)


def test_nowhere_everywhere_and_without_a_target():
    slow = np.asarray(DENSE) * 2.0
    nowhere = answer(made_up([DENSE, slow, slow]))
    assert nowhere.sentence.startswith(
        "Do not compress: at none of the 3 settings (bandwidth) does a compressing scheme"
    )
    assert "at best it is 0.500x as fast" in nowhere.sentence
    everywhere = answer(made_up([DENSE, np.asarray(DENSE) / 3, QSGD]))
    assert everywhere.sentence.startswith("Compress at all 3 settings")
    data = made_up([DENSE, TOPK, QSGD])
    del data.attrs["target"]
    assert "can end its step" in answer(data).sentence


def test_without_uncompressed_scheme_it_cannot_say():
    data = made_up([DENSE, TOPK, QSGD])
    alone = data.isel(scheme=[1, 2]).drop_vars([name for name in data if "baseline" in name or "speedup" in name])
    assert answer(alone).sentence.startswith("Cannot say: no uncompressed scheme")


def test_what_misses_the_target_has_no_speedup():
    missing = np.full((2, 3), np.nan)
    found = answer(made_up([DENSE, missing, QSGD]))
    assert [row.fastest for row in found.rows[1:3]] == [None, None]
    assert any(note.startswith("The target was not reached with every seed by ef(topk") for note in found.notes)
    nobody = answer(made_up([missing, missing, missing]))
    assert nobody.pays == 0


def test_a_proxy_is_marked():
    found = answer(made_up([DENSE, TOPK, QSGD], proxy="resnet50"))
    assert found.sentence.endswith("(proxy: trained on mnist, timed as resnet50)")
    assert found.notes[0].startswith("A proxy")


def test_rates_at_the_end_of_the_grid_are_told():
    found = answer(made_up([DENSE, TOPK, QSGD], tuned_rates=[0.1, 0.3]))
    assert any("at an end of the grid" in note for note in found.notes)


def test_summary_and_table_hold_the_same_rows():
    data = made_up([DENSE, TOPK, QSGD])
    found = answer(data)
    told = sweep_summary(data, found)
    assert told["answer"] == found.sentence
    assert [row["name"] for row in told["schemes"]] == [row.name for row in found.rows]
    assert told["axes"]["bandwidth"] == [1e9, 1e10, 1e11]
    assert sweep_table(data, found).row_count == 4
