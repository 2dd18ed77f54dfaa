"""The table of published runs: what it holds, and that each row says where it is from."""

import csv
import io

import pytest
from pydantic import ValidationError

from gradwire.analysis.published.models import tensors, work_of
from gradwire.analysis.published.sets import Sets, read_sets
from gradwire.analysis.published.table import ALONE, FOLDER, Run, by_name, read_runs
from gradwire.sim.step.device import load_device

RUNS = read_runs()
SETS = read_sets()


def test_it_holds_enough_runs_of_either_strength():
    strong = [run for run in RUNS.values() if run.strength == "A"]
    compressed = [run for run in RUNS.values() if run.strength == "B" and run.compressed]
    assert len(strong) >= 150
    assert len(compressed) >= 40
    assert not any(run.compressed for run in strong)


def test_rows_are_complete_and_no_measurement_stands_twice():
    text = (FOLDER / "runs.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(RUNS)
    assert len({row["run"] for row in rows}) == len(rows)
    measured = [tuple(row[key] for key in row if key not in ("run", "spread", "where", "unknown")) for row in rows]
    twice = [row for row in measured if measured.count(row) > 1]
    # Two bars of one figure, and runs that the source draws with several schemes of the same bytes.
    assert {row[1] for row in twice} <= {"bagua-latency", "bagua-vgg16-10g", "gqsgd-shm"}
    for run in RUNS.values():
        assert "github.com" in run.source or "arXiv" in run.source or "EuroSys" in run.source, run.run
        assert len(run.source) + len(run.where) < 160, "figures, not sentences"


def test_every_name_in_a_row_exists():
    for run in RUNS.values():
        assert run.set in SETS.sets, run.run
        assert run.schedule in SETS.schedules or run.schedule == ALONE or run.unknown, run.run
        if run.alone:
            alone = RUNS[run.alone]
            assert alone.model == run.model
            assert not alone.alone, "an input does not rest on another one"
        elif run.schedule != ALONE and run.forward_ms is None and not run.unknown:
            assert run.run in {other.alone for other in RUNS.values()}, "says itself what a step computes"


def test_models_have_as_many_parameters_as_the_rows_say():
    device = load_device("v100")
    for model in dict.fromkeys(run.model for run in RUNS.values()):
        run = next(one for one in RUNS.values() if one.model == model)
        known = tensors(model, work_of(run, 1.0, device))
        millions = sum(tensor.elements for tensor in known) / 1e6
        assert millions == pytest.approx(run.parameters_millions, rel=0.01), model
        assert [tensor.ready for tensor in known] == sorted(tensor.ready for tensor in known)


def test_workloads_take_what_was_measured():
    device = load_device("v100")
    work = work_of(RUNS["ddl-resnet50-10gbe-bsp-8"], 0.25286, device)
    assert work.forward_s + work.backward_s + work.optimizer_s == pytest.approx(0.25286, rel=1e-12)
    split = RUNS["onebit-bert-large-ethernet-8"]
    work = work_of(split, 0.0, device)
    assert (work.forward_s, work.backward_s, work.optimizer_s) == pytest.approx((0.03495, 0.06123, 0.07526), rel=1e-12)


def test_no_set_is_calibrated_on_more_than_three_rows_of_a_model_or_on_compressed_ones():
    for name, of in SETS.sets.items():
        rows = [RUNS[row] for row in of.calibration]
        assert not any(run.compressed for run in rows), name
        for model in {run.model for run in rows}:
            assert sum(run.model == model for run in rows) <= 3, name
        if any(run.strength == "B" for run in rows):
            assert len(of.fit) == 1, name


def test_faults_of_a_row_are_refused():
    good = RUNS["ddl-resnet50-10gbe-bsp-8"].model_dump()
    for change in ({"step_ms": None}, {"epoch_s": 3.0}, {"link_gbps": None}, {"scheme": "tpok"}, {"workers": 9}):
        with pytest.raises(ValidationError):
            Run.model_validate(good | change)
    with pytest.raises(ValueError, match="called ddl-resnet50-10gbe-bsp-8"):
        by_name([RUNS["ddl-resnet50-10gbe-bsp-8"]] * 2)


def test_more_terms_than_calibration_rows_are_refused():
    data = {"title": "t", "network": "n", "start": {"between": "1 Gbit/s"}, "fit": ["between", "latency"]}
    with pytest.raises(ValidationError, match="2 terms cannot be fitted to 1 runs"):
        Sets.model_validate({"schedules": {}, "sets": {"s": data | {"calibration": ["one"]}}})
