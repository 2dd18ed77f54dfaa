"""What the figures show: the data of their lines and bars, their labels and axes; and that their files never vary."""

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex

from gradwire.analysis import plots

from .test_analysis_data import BF16, DENSE, EVERY, PHASES, TOPK, scheme, synthetic


@pytest.fixture
def run():
    return synthetic({DENSE: scheme(), BF16: scheme(exposed_s=0.04), TOPK: scheme(exposed_s=0.01, diverged=150)})


def curves(figure):
    """Return a figure's labelled lines by label."""
    return {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}


def legend(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


DIVERGED = f"{TOPK} (diverged at step 151)"


@pytest.mark.parametrize(
    ("draw", "variable", "positions"),
    [
        (plots.metric_against_steps, "validation_metric", "evaluated_step"),
        (plots.loss_against_steps, "validation_loss", "evaluated_step"),
        (plots.metric_against_time, "validation_metric", "evaluation_s"),
        (plots.loss_against_time, "validation_loss", "evaluation_s"),
    ],
)
def test_curves_hold_the_evaluations(run, draw, variable, positions):
    found = curves(draw(run))
    found.pop("target: 90 %", None)
    assert list(found) == [DENSE, BF16, DIVERGED]
    for index, line in enumerate(found.values()):
        one = run.isel(scheme=index)
        np.testing.assert_array_equal(line.get_xdata(), one[positions].values)
        np.testing.assert_array_equal(line.get_ydata(), one[variable].values)


@pytest.mark.parametrize(
    ("draw", "positions"), [(plots.loss_against_steps, "step"), (plots.loss_against_time, "end_s")]
)
def test_training_losses_lie_faint_behind(run, draw, positions):
    faint = [line for line in draw(run).axes[0].lines if line.get_alpha()]
    assert len(faint) == 3
    for index, line in enumerate(faint):
        one = run.isel(scheme=index)
        np.testing.assert_array_equal(line.get_xdata(), one[positions].values)
        np.testing.assert_array_equal(line.get_ydata(), one["train_loss"].values)


def test_axes_say_what_they_show_and_in_which_unit(run):
    labels = {
        name: (f.axes[0].get_xlabel(), f.axes[0].get_ylabel())
        for name, draw in plots.FIGURES.items()
        for f in [draw(run)]
    }
    assert labels == {
        "metric-against-time": ("virtual time (s)", "validation accuracy"),
        "metric-against-steps": ("completed steps", "validation accuracy"),
        "loss-against-time": ("virtual time (s)", "validation loss (faint: training)"),
        "loss-against-steps": ("completed steps", "validation loss (faint: training)"),
        "step-phases": ("mean time of a step (ms of virtual time)", ""),
        "sent-bytes": ("bytes a step and worker", ""),
    }


def test_the_target_is_a_line_with_a_legend_entry(run):
    for draw in (plots.metric_against_steps, plots.metric_against_time):
        figure = draw(run)
        np.testing.assert_array_equal(curves(figure)["target: 90 %"].get_ydata(), [0.9, 0.9])
        assert legend(figure) == [DENSE, BF16, DIVERGED, "target: 90 %"]
    del run.attrs["target"]
    figure = plots.metric_against_time(run)
    assert legend(figure) == [DENSE, BF16, DIVERGED]
    assert not figure.axes[0].collections


def test_dotted_lines_drop_to_the_times_at_the_target(run):
    drops = plots.metric_against_time(run).axes[0].collections
    times = [drop.get_segments()[0][0, 0] for drop in drops]
    np.testing.assert_allclose(times, run["evaluation_s"][:, 60 // EVERY])


@pytest.mark.parametrize(
    ("step_s", "unit", "unit_s"), [(1e-6, "us", 1e-6), (1e-3, "ms", 1e-3), (0.05, "s", 1), (3, "min", 60)]
)
def test_the_time_axis_takes_a_sensible_unit(step_s, unit, unit_s):
    run = synthetic({DENSE: scheme()})
    for name in ("end_s", "evaluation_s"):
        run[name] = run[name] / run["step_s"][0, 0] * step_s
    figure = plots.metric_against_time(run)
    assert figure.axes[0].get_xlabel() == f"virtual time ({unit})"
    np.testing.assert_allclose(curves(figure)[DENSE].get_xdata(), run["evaluation_s"][0] / unit_s)


@pytest.mark.parametrize(("exposed_s", "scale"), [(0.95, "linear"), (0.99, "log")])
def test_times_more_than_ten_times_apart_get_a_logarithmic_axis(exposed_s, scale):
    # Steps of 96 and 964 ms are 10.04 times apart, those of 1004 ms 10.46 times.
    run = synthetic({DENSE: scheme(exposed_s=exposed_s), TOPK: scheme(exposed_s=0.0825)})
    for draw in (plots.metric_against_time, plots.loss_against_time):
        assert draw(run).axes[0].get_xscale() == scale
    assert plots.metric_against_steps(run).axes[0].get_xscale() == "linear"


def test_a_scheme_that_diverged_early_does_not_make_the_axis_logarithmic():
    run = synthetic({DENSE: scheme(), TOPK: scheme(diverged=2)})
    assert plots.metric_against_time(run).axes[0].get_xscale() == "linear"


def test_losses_far_apart_get_a_logarithmic_axis_and_an_accuracy_does_not(run):
    assert plots.loss_against_steps(run).axes[0].get_yscale() == "log"
    assert plots.metric_against_steps(run).axes[0].get_yscale() == "linear"
    flat = run.assign(train_loss=run["train_loss"] * 0 + 2.0, validation_loss=run["validation_loss"] * 0 + 1.9)
    assert plots.loss_against_steps(flat).axes[0].get_yscale() == "linear"
    run.attrs["metric"] = "suboptimality"
    run["validation_metric"] = run["validation_loss"]
    assert plots.metric_against_steps(run).axes[0].get_yscale() == "log"


def test_an_accuracy_is_shown_in_percent(run):
    assert plots.metric_against_steps(run).axes[0].yaxis.get_major_formatter()(0.5) == "50 %"


def test_no_two_schemes_look_alike_and_uncompressed_ones_are_neutral():
    run = synthetic({DENSE: scheme(), BF16: scheme(), **{f"ef(topk(density=0.{n}))": scheme() for n in range(1, 19)}})
    lines = curves(plots.loss_against_steps(run))
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines.values()}
    assert len(lines) == len(looks) == 20
    assert (lines[DENSE].get_color(), lines[BF16].get_color()) == ("#000000", "#7f7f7f")
    assert len({line.get_marker() for line in list(lines.values())[:8]}) == 8


def test_phase_bars_stack_to_the_step(run):
    figure = plots.phase_bars(run)
    axes = figure.axes[0]
    assert legend(figure) == ["forward", "backward", "encode", "decode", "optimizer", "exposed communication"]
    for container, phase in zip(axes.containers, PHASES, strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in container], 1e3 * run[phase].mean("step"))
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    np.testing.assert_allclose(ends, [94, 54, 24])
    texts = [text.get_text() for text in axes.texts]
    assert texts == [DENSE, "94.0 ms", BF16, "54.0 ms", DIVERGED, "24.0 ms"]
    assert axes.yaxis_inverted()


def test_bytes_bars_end_at_the_bytes_of_a_step():
    run = synthetic(
        {DENSE: scheme(sent_bytes=4e6), TOPK: scheme(sent_bytes=61_234), "qsgd(bits=4)": scheme(sent_bytes=0)}
    )
    axes = plots.bytes_bars(run).axes[0]
    assert axes.get_xscale() == "log"
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(ends[:2], [4e6, 61_234])
    assert axes.patches[2].get_width() == 0
    assert [text.get_text() for text in axes.texts] == [DENSE, "4.00 MB", TOPK, "61.2 kB", "qsgd(bits=4)", "0 B"]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == ["#000000", "#0072b2", "#d55e00"]
    assert axes.xaxis.get_major_formatter()(1e5) == "100 kB"


def test_a_run_without_a_completed_step_can_be_drawn():
    run = synthetic({DENSE: scheme(diverged=0)})
    for draw in plots.FIGURES.values():
        draw(run).canvas.draw()
    assert plots.phase_bars(run).axes[0].texts[1].get_text() == "-"


def test_long_training_curves_are_pixels():
    def rasterized(steps):
        figure = plots.loss_against_steps(synthetic({DENSE: scheme()}, steps=steps, every=steps // 4))
        return [bool(line.get_rasterized()) for line in figure.axes[0].lines]

    assert rasterized(200) == [False, False]
    assert rasterized(4000) == [True, False]


def test_files_are_the_same_at_every_writing(run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    before = dict(rcParams)
    paths = plots.save_plots(run, first)
    assert [path.name for path in paths] == [f"{name}.png" for name in plots.FIGURES]
    for path, again in zip(paths, plots.save_plots(run, second), strict=True):
        assert path.read_bytes() == again.read_bytes()
        assert path.read_bytes().startswith(b"\x89PNG")
        assert b"tEXt" not in path.read_bytes()
    assert dict(rcParams) == before
