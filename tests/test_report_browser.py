"""The report in a real browser: the explorer's numbers against Python's, sorting, keyboard, phone and dark scheme."""

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from gradwire.analysis.comparison import PHASES, compare
from gradwire.analysis.exploration import Candidate, Curve, explore
from gradwire.analysis.report import report_html
from gradwire.analysis.report.explorer import explorer_html, run_explorer
from gradwire.analysis.report.frame import Section, page
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.experiment import load_experiment
from gradwire.sim.run import run as run_experiment
from gradwire.sim.training.store import Store

from .browser import CONTRASTS, browser, opened
from .explorations import DENSITIES, GOAL, START, STEPS, WORKERS, candidates, curve, plan, summed
from .test_analysis_data import DENSE, TOPK, scheme, synthetic

__all__ = ["browser"]  # the fixture

EVIL = "<script>alert('x')</script>\"&</style>"
STATE = """() => {
  const root = document.querySelector(".explorer");
  const all = (selector) => [...root.querySelectorAll(selector)];
  const value = (name) => root.querySelector(`#explorer-${name}`)?.dataset.value;
  const name = (row) => row.querySelector("code").textContent;
  const number = (cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent);
  const groups = (kind) => all(`figure:not([hidden]) > svg g.${kind}`).map((group) => ({ ...group.dataset }));
  return {
    point: ["bandwidth-exact", "latency-exact", "cost-exact", "density-value", "workers-value"].map(value),
    verdict: root.querySelector(".answer").textContent,
    titles: all("thead th").map((head) => head.textContent),
    rows: all("tbody tr").map((row) => [name(row), ...[...row.cells].slice(1).map(number)]),
    baseline: all("tbody tr").filter((row) => row.querySelector(".badge")).map(name),
    curves: groups("curve"),
    reached: groups("reached"),
    untrained: root.querySelector(".untrained").textContent,
  };
}"""
BOXES = """all => all.filter((one) => one.checkVisibility()).map((one) => {
  const box = one.getBoundingClientRect();
  return [box.left, box.right];
})"""
FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return [at.id || at.textContent.trim().slice(0, 30), style.outlineStyle, parseFloat(style.outlineWidth)];
}"""


@pytest.fixture(scope="module")
def grid():
    return candidates()


@pytest.fixture(scope="module")
def report(grid, tmp_path_factory):
    """A run's report with the explorer of a sweep."""
    run = synthetic({DENSE: scheme(), TOPK: scheme(exposed_s=0.002, codec_s=0.003)})
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_html(run, compare(run), explorer_html(grid, start=START, **GOAL)), encoding="utf-8")
    return path


def explorer_page(folder, schemes, start=START, **goal):
    """An explorer alone on a page."""
    path = folder / "explorer.html"
    html = explorer_html(schemes, start=start, **(GOAL | goal))
    path.write_text(page("Explorer", {}, [Section("explorer", "Explorer", html)], ""), encoding="utf-8")
    return path


def check(shown, schemes, start=START, **goal):
    """Compare all that the page shows with what Python computes at the point that the page is at."""
    goal = GOAL | goal
    bandwidth_bps, latency_s, factor, density, workers = shown["point"]
    point = replace(
        start,
        bandwidth_bps=float(bandwidth_bps),
        latency_s=float(latency_s),
        factor=float(factor),
        density=start.density if density is None else float(density),
        workers=start.workers if workers is None else int(workers),
    )
    expected = explore(schemes, point, **goal)
    assert shown["verdict"] == expected.verdict
    assert shown["baseline"] == [name for name in [expected.baseline] if name is not None]
    titles = [*(["time to target", "speed-up", "steps to target"] if goal["target"] is not None else [])]
    titles = ["scheme", *titles, f"final test {goal['metric']}", "step", "step speed-up", *PHASES]
    assert shown["titles"] == titles
    found = {row[0]: dict(zip(titles, row, strict=True)) for row in shown["rows"]}
    assert set(found) == {row.scheme for row in expected.rows}
    for row in expected.rows:
        _check_row(found[row.scheme], row, goal)
    drawn = [row for row in expected.rows if len(row.metric) > 1]
    assert [one["scheme"] for one in shown["curves"]] == [row.scheme for row in drawn]
    for one, row in zip(shown["curves"], drawn, strict=True):
        np.testing.assert_allclose(json.loads(one["seconds"]), row.evaluation_s, rtol=1e-9)
        np.testing.assert_allclose(json.loads(one["metric"]), row.metric, rtol=1e-9)
    reached = {one["scheme"]: float(one["seconds"]) for one in shown["reached"]}
    times = {row.scheme: row.time_to_target_s for row in drawn if row.time_to_target_s}
    assert reached == pytest.approx(times, rel=1e-9)
    missing = [row.scheme for row in expected.rows if not row.seeds]
    assert shown["untrained"].startswith("Not trained here") == bool(missing)
    assert all(name in shown["untrained"] for name in missing)
    return point


def _check_row(found, row, goal):
    numbers = {
        "step": row.step_s,
        "step speed-up": row.step_speedup,
        **dict(zip(PHASES, row.phases_s, strict=True)),
        f"final test {goal['metric']}": row.final_metric,
    }
    if goal["target"] is not None:
        numbers |= {
            "time to target": row.time_to_target_s,
            "speed-up": row.speedup,
            "steps to target": row.steps_to_target,
        }
    for title, value in numbers.items():
        if value is None or np.isnan(value):
            assert isinstance(found[title], str), title
        else:
            assert found[title] == pytest.approx(value, rel=1e-9, abs=1e-15), title
    if not row.seeds:
        assert found[f"final test {goal['metric']}"] == "not trained"
    elif row.failure:
        assert row.final_metric is not None or found[f"final test {goal['metric']}"] == row.failure
    if row.seeds and goal["target"] is not None and row.time_to_target_s is None:
        assert found["time to target"] == (f"{row.reached} of {row.seeds} seeds" if row.reached else "not reached")


def slider(at, name):
    return at.locator(f"#explorer-{name}")


def drag(at, name, share):
    """Take a slider's thumb with the mouse and move it to a share of its length."""
    one = slider(at, name)
    one.scroll_into_view_if_needed()
    box = one.bounding_box()
    low, high, now = (float(one.evaluate(f"one => one.{key}")) for key in ("min", "max", "value"))
    thumb, y = 8, box["y"] + box["height"] / 2
    span = box["width"] - 2 * thumb
    at.mouse.move(box["x"] + thumb + span * (now - low) / (high - low), y)
    at.mouse.down()
    at.mouse.move(box["x"] + thumb + span * share, y, steps=3)
    at.mouse.up()
    away = abs((float(one.input_value()) - low) / (high - low) - share)
    assert away < (0.02 if high - low > 2 else 0.26)  # the mouse did move it; two steps are far apart


# ------------------------------------------------------------------------------------------- numbers equal Python's


def test_numbers_at_the_start_are_pythons(browser, grid, report):
    with opened(browser, report) as at:
        assert check(at.evaluate(STATE), grid) == START


def test_numbers_wherever_the_sliders_are_moved_are_pythons(browser, grid, report):
    """At random, by keys, by the mouse, by setting and by typing; the page recomputes at each."""
    draw = random.Random(8)
    visited = set()
    with opened(browser, report) as at:
        for i in range(40):
            name = ("bandwidth", "latency", "cost", "density", "workers")[i % 5]  # each in each of four ways
            if i % 4 == 0:
                slider(at, name).focus()
                for key in draw.choices(["ArrowRight", "ArrowLeft", "PageUp", "PageDown", "Home", "End"], k=2):
                    at.keyboard.press(key)
            elif i % 4 == 1:
                drag(at, name, draw.random())
            elif i % 4 == 2:
                one = slider(at, name)
                low, high, step = (float(one.get_attribute(key)) for key in ("min", "max", "step"))
                one.fill(f"{low + step * draw.randint(0, round((high - low) / step)):.6g}")
            else:
                name = draw.choice(["bandwidth", "latency", "cost"])
                typed = {
                    "bandwidth": f"{10 ** draw.uniform(-2, 2):.6g} Gbit/s",
                    "latency": f"{draw.uniform(0, 3000):.7g} us",
                    "cost": f"{draw.choice([0, draw.uniform(0, 10)]):.6g}",
                }
                at.locator(f"#explorer-{name}-exact").fill(typed[name])
                at.keyboard.press("Enter")
            visited.add(check(at.evaluate(STATE), grid))
    assert len(visited) > 30
    assert {point.workers for point in visited} == set(WORKERS)
    assert {point.density for point in visited} == set(DENSITIES)


def test_every_kind_of_verdict_is_worded_as_in_python(browser, grid, report):
    kinds = set()
    with opened(browser, report) as at:
        slider(at, "density").fill("2")
        for workers in range(len(WORKERS)):
            slider(at, "workers").fill(str(workers))
            for bandwidth, cost in ((7, 0), (9, 0.5), (12, -2.01)):
                slider(at, "bandwidth").fill(str(bandwidth))
                slider(at, "cost").fill(str(cost))
                shown = at.evaluate(STATE)
                check(shown, grid)
                kinds.add(shown["verdict"].partition(":")[0])
    assert kinds == {"Compress", "Do not compress", "Not trained here, so only steps are compared"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": None}, ["a step with", "step is exposed communication"]),
        ({"target": 0.05}, ["a step with"]),  # met before the first step
        ({"target": 0.96}, ["No scheme reached 96 % validation accuracy with every seed"]),
        ({"target": 0.05, "metric": "loss", "higher_is_better": False}, ["a validation loss of 0.05 with every seed"]),
        ({"target": 0.5, "metric": "loss", "higher_is_better": False}, ["final test loss is "]),
        ({"proxy": "proxy: trained on digits, timed as bert"}, ["(proxy: trained on digits, timed as bert)"]),
    ],
)
def test_other_goals_give_pythons_numbers_and_words(browser, grid, tmp_path, changes, words):
    start = replace(START, workers=8, density=0.1)
    with opened(browser, explorer_page(tmp_path, grid, start, **changes)) as at:
        shown = at.evaluate(STATE)
        check(shown, grid, start, **changes)
        assert all(word in shown["verdict"] for word in words)
        mark = f" ({changes['proxy']})" if "proxy" in changes else ""
        assert at.locator("figcaption").inner_text().endswith(f"against virtual time{mark}")
        assert at.get_by_role("region", name=f"Schemes where the sliders are{mark}").count() == 1


def test_a_run_shows_in_its_explorer_what_its_table_shows(browser, tmp_path):
    """The page's own arithmetic against the run's timelines; what the run has one value of is text."""
    changes = [
        *("training.workers=2", "training.steps=20", "training.evaluate_every=5"),
        *("training.learning_rate=0.3", "training.target=0.4"),
    ]
    schemes = ["dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk(density=0.1))"]
    run = run_experiment(load_experiment("mnist", changes, schemes), Store(tmp_path))
    comparison = compare(run.dataset())
    path = tmp_path / "report.html"
    html = page("Run", {}, [Section("explorer", "Explorer", run_explorer(run, comparison))], "")
    path.write_text(html, encoding="utf-8")
    with opened(browser, path) as at:
        shown = at.evaluate(STATE)
        assert at.locator("#explorer-workers").count() == at.locator("#explorer-density").count() == 0
        assert "workers\n2\n" in at.locator(".controls").inner_text()
    found = {row[0]: dict(zip(shown["titles"], row, strict=True)) for row in shown["rows"]}
    for row in comparison.rows:
        own = found[row.scheme]
        assert own["step"] == pytest.approx(row.step_s, rel=1e-9)
        assert own["exposed communication"] == pytest.approx(row.exposed_communication_s, rel=1e-9)
        assert own["encode"] + own["decode"] == pytest.approx(row.codec_s, rel=1e-9)
        assert row.steps_to_target > 0
        assert own["time to target"] == pytest.approx(row.time_to_target_s, rel=1e-9)
        assert own["speed-up"] == pytest.approx(row.speedup, rel=1e-9)
        assert own["final test accuracy"] == pytest.approx(row.final_metric, rel=1e-9)
    assert shown["baseline"] == [comparison.baseline.scheme]


@pytest.mark.parametrize(("bandwidth_bps", "scale"), [(1e11, "linear"), (3e8, "logarithmic")])
def test_curves_are_drawn_to_scale(browser, grid, tmp_path, bandwidth_bps, scale):
    """Points lie on straight lines over time and metric, with a marker where the time to the target is."""
    start = replace(START, workers=8, density=0.1, bandwidth_bps=bandwidth_bps)
    with opened(browser, explorer_page(tmp_path, grid, start)) as at:
        drawn = at.locator("figure > svg g.curve").evaluate_all(
            "all => all.map(one => [one.dataset.seconds, one.dataset.metric, one.firstChild.getAttribute('d')])"
        )
        circles = at.locator("figure > svg g.reached").evaluate_all(
            "all => all.map(one => [one.dataset.seconds, one.querySelector('circle').getAttribute('cx')])"
        )
        text = at.locator("figure > svg").text_content()
    assert ("virtual time (ms, logarithmic)" if scale == "logarithmic" else "virtual time (ms)") in text
    assert "validation accuracy" in text
    first, along = (1, np.log) if scale == "logarithmic" else (0, np.asarray)
    seconds = np.concatenate([json.loads(one)[first:] for one, _, _ in drawn])
    metric = np.concatenate([json.loads(one)[first:] for _, one, _ in drawn])
    x, y = np.concatenate([[pair.split() for pair in path[1:].split("L")] for *_, path in drawn]).astype(float).T
    slope, zero = np.polyfit(along(seconds), x, 1)
    np.testing.assert_allclose(x, slope * along(seconds) + zero, atol=0.02)
    falling, base = np.polyfit(metric, y, 1)
    np.testing.assert_allclose(y, falling * metric + base, atol=0.02)
    assert slope > 0 > falling
    assert len(circles) == 4
    for when, place in circles:
        assert float(place) == pytest.approx(slope * along(float(when)) + zero, abs=0.02)


def test_links_inside_of_a_host_do_not_feel_the_sliders_and_count_as_in_python(browser, tmp_path):
    intra = {"bandwidth": "100 Gbit/s", "latency": "3 us"}
    keys = {"bandwidth": "8 Gbit/s", "latency": "5 us", "launch": "2 us", "gpus": 4, "intra": intra}
    one = plan([(summed(1, 1_000_000, 4),)] * STEPS, make_cluster(keys))
    schemes = [Candidate(DENSE, True, None, 4, ((one,),), (curve(0.2, 0),))]
    start = replace(START, density=None)
    with opened(browser, explorer_page(tmp_path, schemes, start)) as at:
        before = at.evaluate(STATE)
        check(before, schemes, start)
        slider(at, "bandwidth").press("Home")
        shown = at.evaluate(STATE)
        check(shown, schemes, start)
    assert shown["rows"] == before["rows"]
    assert shown["rows"][0][12] > 0  # communication is exposed


def test_rarer_verdicts_are_worded_as_in_python(browser, tmp_path):
    big, small = (plan([(summed(1, size, 4),)] * STEPS) for size in (4_000_000, 400_000))
    good, never = curve(0.2, 0, final=0.92), curve(0.01, 0, final=0.6)
    dense, slow = (Candidate(DENSE, True, None, 4, ((big,),), (one,)) for one in (good, never))

    def rival(plan, curve, name=TOPK):
        return Candidate(name, False, None, 4, ((plan,),), (curve,))

    cases = {
        "It makes no difference: ": [dense, rival(big, good)],
        "Compress only if a worse model will do: ": [dense, rival(small, curve(0.2, 0, final=0.8))],
        "Do not compress: no compressing scheme reached ": [dense, rival(small, never)],
        "Do not compress: at best, ": [dense, rival(big, curve(0.1, 0)), rival(big, curve(0.12, 0), "qsgd")],
        "Compress: ef(topk(density=0.01)) reaches ": [slow, rival(big, good)],
        "Nothing to decide: ": [dense],
        "Cannot say: there is no uncompressed scheme": [rival(big, good)],
    }
    start = replace(START, density=None)
    for words, schemes in cases.items():
        with opened(browser, explorer_page(tmp_path, schemes, start)) as at:
            shown = at.evaluate(STATE)
            check(shown, schemes, start)
        assert shown["verdict"].startswith(words)


def test_what_failed_before_its_first_step_has_no_numbers(browser, tmp_path):
    failed = Curve(np.array([0]), np.array([0.1]), "diverged at step 1: loss is nan", None)
    trained = plan([(summed(0, 1_000_000, 4),)] * STEPS)
    schemes = [
        Candidate(DENSE, True, None, 4, ((trained,),), (curve(0.2, 0),)),
        Candidate(TOPK, False, None, 4, ((plan([]),),), (failed,)),
    ]
    start = replace(START, density=None)
    with opened(browser, explorer_page(tmp_path, schemes, start)) as at:
        shown = at.evaluate(STATE)
        check(shown, schemes, start)
    assert shown["rows"][1] == [TOPK, "not reached", "-", "not reached", "diverged at step 1", *["-"] * 8]


# ------------------------------------------------------------------------------------------------ typing and reset


def test_what_is_typed_is_taken_exactly_and_what_cannot_be_read_is_said(browser, grid, report):
    with opened(browser, report) as at:
        for name, text, value in (
            ("bandwidth", "2.5Gbit/s", "2500000000"),
            ("bandwidth", "40 Gbps", "40000000000"),
            ("latency", "12.3456 us", "0.0000123456"),
            ("latency", "7 \u00b5s", "0.000007"),
            ("latency", "0 s", "0"),
            ("cost", "0", "0"),
            ("cost", "2.718281828 x", "2.718281828"),
        ):
            field = at.locator(f"#explorer-{name}-exact")
            field.fill(text)
            field.press("Enter")
            assert float(field.get_attribute("data-value")) == float(value)
            assert field.get_attribute("aria-invalid") is None
            check(at.evaluate(STATE), grid)
        before = at.evaluate(STATE)
        wrong = (("bandwidth", "fast"), ("bandwidth", "0 Gbit/s"), ("latency", "-1 us"), ("cost", "1 Gbit/s"))
        for name, text in wrong:
            field = at.locator(f"#explorer-{name}-exact")
            field.fill(text)
            field.press("Enter")
            assert field.get_attribute("aria-invalid") == "true"
            assert at.locator(f"#explorer-{name}-fault").inner_text().startswith("Write it like ")
        assert at.evaluate(STATE) == before
        at.get_by_role("button", name="Back to the start").click()
        assert check(at.evaluate(STATE), grid) == START
        assert at.locator("[aria-invalid]").count() == 0


def test_the_cost_slider_ends_at_nothing(browser, grid, report):
    with opened(browser, report) as at:
        slider(at, "cost").press("Home")
        shown = at.evaluate(STATE)
        assert check(shown, grid).factor == 0
        assert all(row[9:11] == [0, 0] for row in shown["rows"])
        slider(at, "cost").press("ArrowRight")
        assert check(at.evaluate(STATE), grid).factor == 0.01


# ------------------------------------------------------------------------------------------------------- the page


def test_tables_sort_and_stay_sorted(browser, report):
    def parts(at, label):
        table = at.get_by_role("region", name=label).locator("table")
        return table.locator("thead button").filter(has_text=re.compile("^step$")), table.locator("tbody th code")

    with opened(browser, report) as at:
        head, _ = parts(at, "Schemes where the sliders are")
        head.click()
        for bandwidth in (7, 12):
            slider(at, "bandwidth").fill(str(bandwidth))
            steps = [row[5] for row in at.evaluate(STATE)["rows"]]
            assert steps == sorted(steps)
        head.focus()
        at.keyboard.press("Enter")
        steps = [row[5] for row in at.evaluate(STATE)["rows"]]
        assert steps == sorted(steps, reverse=True)
        assert head.locator("xpath=..").get_attribute("aria-sort") == "descending"
        head, names = parts(at, "Schemes compared")
        assert names.all_inner_texts() == [DENSE, TOPK]
        head.click()
        assert names.all_inner_texts() == [TOPK, DENSE]


def test_every_control_has_a_name_and_can_be_reached_and_moved_by_keys(browser, report):
    with opened(browser, report) as at:
        for name in ("density", "bandwidth", "latency", "cost of encoding and decoding", "workers"):
            assert at.get_by_role("slider", name=name, exact=True).count() == 1
        for name in ("bandwidth", "latency", "cost of encoding and decoding"):
            assert at.get_by_role("textbox", name=f"{name}, exactly").count() == 1
        answer = at.locator(".answer")
        assert (answer.get_attribute("role"), answer.get_attribute("aria-live")) == ("status", "polite")
        visited = []
        for _ in range(60):
            at.keyboard.press("Tab")
            here = at.evaluate(FOCUS)
            visited.append(here[0])
            if at.evaluate("document.activeElement === document.body"):
                break
            assert here[1] != "none", here
            assert here[2] >= 1, here
        order = [f"explorer-{name}" for name in ("density", "bandwidth-exact", "bandwidth", "latency-exact", "latency")]
        places = [visited.index(name) for name in [*order, "explorer-cost-exact", "explorer-cost", "explorer-workers"]]
        assert places == list(range(places[0], places[0] + 8))
        assert visited.index("time to target", places[-1]) > places[-1]


def test_arrows_move_a_slider_and_its_text(browser, report):
    with opened(browser, report) as at:
        one = slider(at, "bandwidth")
        one.press("ArrowRight")
        assert one.get_attribute("aria-valuetext") == "1.02 Gbit/s"
        assert at.locator("#explorer-bandwidth-exact").input_value() == "1.02 Gbit/s"
        one = slider(at, "density")
        one.press("ArrowRight")
        assert one.get_attribute("aria-valuetext") == "0.03 (not trained)"
        slider(at, "workers").press("End")
        assert slider(at, "workers").get_attribute("aria-valuetext") == "8"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_not_scroll_sideways(browser, report, width):
    with opened(browser, report, width=width, height=844, is_mobile=True, has_touch=True) as at:
        for workers in (1, 2):
            slider(at, "workers").fill(str(workers))
            assert at.evaluate("document.documentElement.scrollWidth") <= width
            boxes = at.locator(".explorer input, .explorer figure, .answer").evaluate_all(BOXES)
            assert len(boxes) >= 9
            assert all(left >= 0 and right <= width for left, right in boxes)
        size = at.locator("figure > svg text").first.evaluate("one => one.getBoundingClientRect().height")
        assert size > 10  # drawn anew for the width, not scaled down


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(browser, report, colours):
    with opened(browser, report, color_scheme=colours) as at:
        slider(at, "workers").press("End")
        at.locator("summary").click()
        at.locator("#explorer-cost-exact").fill("much")
        at.locator("#explorer-cost-exact").press("Enter")
        ground = at.evaluate("getComputedStyle(document.body).backgroundColor")
        contrasts = at.evaluate(CONTRASTS)
    assert (ground == "rgb(246, 247, 249)") == (colours == "light")
    assert len(contrasts) > 100
    assert [pair for pair in contrasts if pair[1] < 4.5] == []


def test_hostile_names_stay_text(browser, grid, tmp_path):
    evil = [replace(one, scheme=f"{one.scheme}{EVIL}") for one in grid]
    with opened(browser, explorer_page(tmp_path, evil, metric=EVIL)) as at:
        shown = at.evaluate(STATE)
        check(shown, evil, metric=EVIL)
        assert EVIL in shown["verdict"]
        assert at.locator("tbody code", has_text="alert").count() == 4
