"""Frozen predictions: they are written once, and no configuration is both calibrated on and predicted."""

import re

import pytest

from gradwire.analysis.measurement.jobs import CodecJob, CollectiveJob, ComputeJob, Link, StepJob
from gradwire.analysis.measurement.machine import this_machine
from gradwire.analysis.measurement.records import append_record, open_file, read_records
from gradwire.analysis.validation.frozen import Frozen, check_apart, read_frozen
from gradwire.analysis.validation.predict import PHASES, Predicted
from gradwire.compressors.errors import InputError
from gradwire.sim.profile import Profile

LINK = Link(link_bps=1e8, burst_bytes=26_084)
JOB = StepJob(task="mnist", scheme="topk(density=0.01)")
PROFILE = Profile(description="a machine", errors={"all-reduce: median": 0.01})


def prediction(step_s: float = 1 / 3) -> Predicted:
    return Predicted(step_s, dict.fromkeys(PHASES, step_s / 6), 1234.5, ("topk on units of 3 x 4",))


def frozen(step_s: float = 1 / 3, profile: Profile = PROFILE) -> Frozen:
    return Frozen.of({JOB.blank(4, LINK).key: prediction(step_s)}, [profile])


def test_what_was_frozen_reads_back_as_it_was(tmp_path):
    frozen().freeze(tmp_path / "predictions.json")
    assert read_frozen(tmp_path / "predictions.json") == frozen()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


def test_the_same_predictions_may_be_frozen_again(tmp_path):
    path = tmp_path / "predictions.json"
    frozen().freeze(path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    frozen().freeze(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "other",
    [
        frozen(step_s=0.3333333333333334),  # one unit in the last place more
        frozen(profile=PROFILE.model_copy(update={"description": "another machine"})),
        Frozen.of({JOB.blank(4, Link()).key: prediction()}, [PROFILE]),
        Frozen.of({}, [PROFILE]),
    ],
    ids=["another number", "another profile", "another configuration", "none"],
)
def test_others_are_refused_and_the_file_stays(other, tmp_path):
    path = tmp_path / "predictions.json"
    frozen().freeze(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=re.escape(f"{path}: holds other predictions, which are not changed; give")):
        other.freeze(path)
    assert path.read_bytes() == before


def test_the_digest_is_of_all_profiles_in_their_order():
    other = PROFILE.model_copy(update={"description": "another machine"})
    digests = {Frozen.of({}, profiles).digest for profiles in ([PROFILE], [other], [PROFILE, other], [other, PROFILE])}
    assert len(digests) == 4


# --------------------------------------------------------------------------------------------------------------- apart


def test_a_step_that_was_calibrated_on_is_not_predicted(tmp_path):
    """The record as a measurement leaves it in a file, with its times."""
    path = tmp_path / "calibration.jsonl"
    open_file(path, this_machine("gloo", 1))
    append_record(path, JOB.blank(4, LINK).model_copy(update={"step_s": (0.1, 0.2), "forward_s": (0.1, 0.1)}))
    _, records = read_records(path)
    with pytest.raises(InputError) as caught:
        check_apart(records, frozen().predictions)
    assert str(caught.value) == (
        "topk(density=0.01) on mnist is in the calibration's records and in the grid: a configuration is calibrated on "
        "or predicted, not both"
    )


@pytest.mark.parametrize(
    ("job", "workers", "link"),
    [
        (JOB.model_copy(update={"scheme": "dense(dtype=native)"}), 4, LINK),
        (JOB.model_copy(update={"batch_size": 16}), 4, LINK),
        (JOB.model_copy(update={"overlap": True}), 4, LINK),
        (JOB, 2, LINK),
        (JOB, 4, Link(link_bps=1e9, burst_bytes=250_000)),
        (JOB, 4, Link()),
    ],
    ids=["scheme", "batch", "overlap", "workers", "rate", "no rate"],
)
def test_another_step_may_be_calibrated_on(job, workers, link):
    check_apart([job.blank(workers, link)], frozen().predictions)


def test_micro_benchmarks_are_no_configurations():
    """Even under a key that a file could have mixed up."""
    jobs = (
        CollectiveJob(operations=("all-reduce",), sizes=(4,)),
        ComputeJob(task="mnist"),
        CodecJob(scheme=JOB.scheme, shape=(3, 4)),
    )
    records = [job.blank(4, LINK) for job in jobs]
    check_apart(records, {record.key: prediction() for record in records})
