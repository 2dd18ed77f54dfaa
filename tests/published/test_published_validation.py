"""The validation on published runs: roles, errors, orders, the command, and the bars that predictions must pass."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwire.analysis.published.orders import Pair, schedule_pairs, winner_pairs
from gradwire.analysis.published.sets import RunSet, Sets, read_sets
from gradwire.analysis.published.table import read_runs
from gradwire.analysis.published.tables import SUMMARY, order_lines, summary_rows, trivial_line
from gradwire.analysis.published.validation import Errors, Outcome, Part, Role, validate
from gradwire.cli import app

RUNS, SETS = read_runs(), read_sets()
PAGE = (Path(__file__).parents[2] / "docs/background/published-runs.md").read_text(encoding="utf-8")
NAME = "onebit-ethernet"
OF = SETS.sets[NAME]


def only(name: str, of: RunSet) -> Sets:
    return SETS.model_copy(update={"sets": {name: of}})


@pytest.fixture(scope="module")
def small() -> tuple[Part, ...]:
    """Two sets that take no time."""
    return validate(
        RUNS, SETS.model_copy(update={"sets": {NAME: OF, "onebit-infiniband": SETS.sets["onebit-infiniband"]}})
    )


def test_calibration_rows_come_out_as_measured_and_others_are_predicted(small):
    part = small[0]
    roles = {one.run.run.removeprefix("onebit-bert-large-ethernet-"): one.role for one in part.outcomes}
    assert roles == {"32": Role.PREDICTED, "8": Role.FITTED, "4": Role.FITTED}
    assert all(abs(one.error) < 1e-4 for one in part.having(Role.FITTED))
    (predicted,) = part.having(Role.PREDICTED)
    assert predicted.measured_s == pytest.approx(2.3476, rel=1e-12)
    assert 1e-4 < abs(predicted.error) < 0.05


def test_a_row_that_is_fitted_and_predicted_is_refused(small):
    part = small[0]
    changed = tuple(replace(one, role=Role.PREDICTED) for one in part.outcomes)
    with pytest.raises(
        ValueError, match="both fitted and predicted: onebit-bert-large-ethernet-4, onebit-bert-large-e"
    ):
        replace(part, outcomes=changed)
    forgotten = tuple(one for one in part.outcomes if one.role != Role.FITTED)
    with pytest.raises(ValueError, match="the fitted runs are not those of its calibration"):
        replace(part, outcomes=forgotten)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("onebit-ethernet", "onebit-bert-large-infiniband-8"),  # of another set
        ("gqsgd-shm", "gqsgd-wide-resnet101-2-shm-linear4"),  # its wire is unknown
        ("ddl-10gbe", "ddl-resnet50-1"),  # an input
        ("gqsgd-nvlink", "gqsgd-wide-resnet101-2-nvlink-dense"),  # an input that other rows name
    ],
)
def test_rows_that_cannot_calibrate_are_refused(name, row):
    of = SETS.sets[name].model_copy(update={"calibration": (row,), "fit": ("inside",)})
    with pytest.raises(ValueError, match=f"cannot be calibrated on {row}"):
        validate(RUNS, only(name, of))


def test_a_term_without_influence_is_refused():
    rows = ("onebit-bert-large-ethernet-4",)  # one host: nothing goes between hosts
    of = OF.model_copy(update={"calibration": rows, "fit": ("between",)})
    with pytest.raises(ValueError, match="its calibration rows do not determine between"):
        validate(RUNS, only(NAME, of))
    of = OF.model_copy(update={"calibration": rows, "fit": ("launch",)})
    with pytest.raises(ValueError, match="needs a start above 0"):
        validate(RUNS, only(NAME, of))


def outcome(run: str, role: Role, measured_s: float, predicted_s: float | None, spread: float = 0.0) -> Outcome:
    return Outcome(RUNS[run].model_copy(update={"spread": spread}), role, measured_s, predicted_s)


def test_errors_are_magnitudes():
    rows = [outcome("ddl-resnet50-1", Role.PREDICTED, 1.0, 1 + error) for error in (0.1, -0.3, 0.0, 0.2)]
    found = Errors.of(rows)
    assert (found.rows, found.median, found.high, found.worst) == pytest.approx((4, 0.15, 0.285, 0.3))
    assert Errors.of([]).rows == 0
    assert np.isnan(Errors.of([]).median)


@pytest.mark.parametrize(
    ("measured", "predicted", "spread", "decidable", "right"),
    [
        ((1.0, 2.0), (3.0, 4.0), 0.0, True, True),
        ((1.0, 2.0), (4.0, 3.0), 0.0, True, False),
        ((1.0, 2.0), (3.0, 3.0), 0.0, True, False),
        ((1.0, 1.1), (3.0, 4.0), 0.06, False, True),
        ((1.0, 1.1), (None, 4.0), 0.01, True, True),
    ],
)
def test_pairs(measured, predicted, spread, decidable, right):
    rows = [outcome("ddl-resnet50-1", Role.PREDICTED, *pair, spread) for pair in zip(measured, predicted, strict=True)]
    pair = Pair(*rows)
    assert (pair.decidable, pair.right) == (decidable, right)


def test_pairs_are_of_one_set_up_and_hold_a_prediction():
    def part(name: str, role: dict[str, Role]) -> Part:
        rows = [run for run in RUNS.values() if run.set == name and run.schedule in SETS.schedules]
        outcomes = tuple(Outcome(run, role.get(run.run, Role.PREDICTED), run.step_s(), run.step_s()) for run in rows)
        fitted = tuple(run for run, use in role.items() if use == Role.FITTED)
        of = SETS.sets[name].model_copy(update={"calibration": fitted, "fit": ()})
        return Part(name, of, of.start, outcomes)

    fitted = {f"ddl-resnet50-ib-{schedule}-4": Role.FITTED for schedule in ("bsp", "wfbp")}
    pairs = schedule_pairs([part("ddl-ib", fitted)])
    assert all(pair.right for pair in pairs)
    assert {(pair.first.run.model, pair.first.run.workers) for pair in pairs} == set(
        product(("resnet50", "bert-large"), (4, 8, 16))
    )
    assert ("ddl-resnet50-ib-bsp-4", "ddl-resnet50-ib-wfbp-4") not in [
        (p.first.run.run, p.second.run.run) for p in pairs
    ]
    winners = winner_pairs([part("bagua-vgg16-tcp", {})])
    assert {pair.first.run.run for pair in winners} == {"bagua-vgg16-tcp-gradient-allreduce"}, "the fastest dense one"
    assert len(winners) == 3


def test_command(small, monkeypatch, tmp_path):
    monkeypatch.setattr("gradwire.cli.validate_published.validate", lambda: small)
    numbers, picture = tmp_path / "numbers.json", tmp_path / "picture.svg"
    outcome = CliRunner().invoke(
        app, ["validate", "published", "--rows", "--json", str(numbers), "--plot", str(picture)]
    )
    assert outcome.exit_code == 0, outcome.output
    data = json.loads(numbers.read_text())
    assert [one["run"] for one in data["rows"] if one["role"] == "predicted"] == ["onebit-bert-large-ethernet-32"]
    (row,) = (one for one in data["rows"] if one["role"] == "predicted")
    assert row["error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1)
    assert data["sets"][0]["errors"] == data["errors"]["strength_a"]
    assert data["sets"][0]["errors"]["worst"] == pytest.approx(abs(row["error"]))
    assert data["errors"]["compressed"]["median"] is None
    assert "fitted to onebit-bert-large-ethernet-4, onebit-bert-large-ethernet-8" in outcome.output
    assert f"{100 * row['error']:+.1f} %  predicted" in outcome.output
    assert picture.read_text().count("predicted step (s)") >= 1


def test_command_refuses_files_before_it_works(monkeypatch, tmp_path):
    monkeypatch.setattr("gradwire.cli.validate_published.validate", lambda: pytest.fail("worked"))
    outcome = CliRunner().invoke(app, ["validate", "published", "--plot", str(tmp_path / "picture.bmp")])
    assert outcome.exit_code == 2
    outcome = CliRunner().invoke(app, ["validate", "published", "--json", str(tmp_path / "no" / "numbers.json")])
    assert outcome.exit_code == 2


# ------------------------------------------------------------------------------------------------------------ bars


@pytest.fixture(scope="module")
def parts() -> tuple[Part, ...]:
    return validate()


@pytest.mark.slow
def test_bars_of_uncompressed_runs(parts):
    rows = [one for part in parts for one in part.having(Role.PREDICTED) if one.run.strength == "A"]
    errors = Errors.of(rows)
    assert errors.rows >= 90
    assert errors.median <= 0.07
    assert errors.worst <= 0.30
    pairs = schedule_pairs(parts)
    assert len(pairs) >= 50
    assert sum(pair.right for pair in pairs) >= 0.95 * len(pairs)


@pytest.mark.slow
def test_bars_of_compressed_runs(parts):
    rows = [one for part in parts for one in part.having(Role.PREDICTED) if one.run.compressed]
    assert len(rows) >= 40
    assert Errors.of(rows).median <= 0.15
    assert Errors.of(one for one in rows if not one.nothing_sent).median <= 0.15
    pairs = winner_pairs(parts)
    assert len(pairs) >= 25
    assert sum(pair.right for pair in pairs) >= 0.90 * len(pairs)


@pytest.mark.slow
def test_page_has_the_numbers_that_the_program_makes(parts):
    """Up to a unit of the last digit, by which machines may differ."""
    titles, *rows = table(PAGE, "## Errors")
    assert titles == list(SUMMARY)
    for shown, made in zip(rows, summary_rows(parts), strict=True):
        assert [cell for cell in shown if "%" not in cell] == [cell for cell in made if "%" not in cell]
        numbers = ([float(cell.removesuffix(" %")) for cell in cells if "%" in cell] for cells in (shown, made))
        assert next(numbers) == pytest.approx(next(numbers), abs=0.11), shown[0]
    page = " ".join(PAGE.split())
    for line in order_lines(parts):
        (right,) = re.findall(r"right in \d+ of \d+ pairs", line)
        assert f"{right}." in page
    (median,) = re.findall(r"without them the median is .* %", trivial_line(parts))
    assert f"{median}." in page
    counted = winner_pairs(count_byteps_compress(part) for part in parts)
    said = f"{sum(pair.right for pair in counted)} of {len(counted)}"
    assert f"With these five rows the winner would be right in {said}." in page


def count_byteps_compress(part: Part) -> Part:
    """Count the runs whose CPU is unknown."""
    outcomes = (
        replace(one, role=Role.PREDICTED) if one.run.schedule == "byteps-compress" else one for one in part.outcomes
    )
    return replace(part, outcomes=tuple(outcomes))


def test_page_has_every_set():
    assert {of.title for of in SETS.sets.values()} == {row[0] for row in table(PAGE, "## Errors")[1:-2]}


def table(text: str, after: str) -> list[list[str]]:
    """Return the cells of the first table behind a heading, the titles first."""
    lines = text[text.index(f"{after}\n") :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next(i for i, line in enumerate(lines[start:], start) if not line.startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]
    return [rows[0], *rows[2:]]
