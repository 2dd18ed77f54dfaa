"""Records and their files, plans of jobs, and how marks become phases."""

import pytest
import torch

from gradwire.analysis.measurement.clock import Clock
from gradwire.analysis.measurement.jobs import CodecJob, CollectiveJob, ComputeJob, Link, Plan, StepJob
from gradwire.analysis.measurement.machine import this_machine
from gradwire.analysis.measurement.phases import MarkingWatch, Marks, phases, work_of
from gradwire.analysis.measurement.records import (
    CodecRecord,
    CollectiveRecord,
    CollectiveUse,
    ComputeRecord,
    LayerRecord,
    StepRecord,
    append_record,
    median,
    open_file,
    read_records,
    spread,
)
from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective

MACHINE = this_machine("gloo", 1)
STEP = StepRecord(
    task="mnist",
    options={"hidden": "20,10"},
    batch_size=8,
    workers=4,
    scheme="dense(dtype=native)",
    unit="layer",
    message="bucket",
    bucket_bytes=1000,
    first_bucket_bytes=1000,
    overlap=True,
    agree=True,
    link_bps=1e8,
    burst_bytes=65536,
    forward_s=(0.1, 1 / 3),
    step_s=(0.5, 2 / 3),
    ready_s=(0.2,),
    collectives=(CollectiveUse(operation="all-reduce", message=0, round=0, bytes=8.5, seconds=0.1),),
)
RECORDS = [
    CollectiveRecord(operation="all-to-all", workers=4, bytes=1024, pause_s=0.5, seconds=(1e-3, 2e-3)),
    ComputeRecord(
        task="own:Task",
        batch_size=2,
        workers=2,
        forward_s=(0.1,),
        layers=(LayerRecord(name="1", parameters=("1.weight",), elements=3, forward_s=0.1, backward_s=0.2),),
    ),
    CodecRecord(scheme="topk(density=0.01)", shape=(3, 4), units=2, workers=2, encode_s=(1e-5,)),
    STEP,
    STEP.model_copy(update={"scheme": "onebitadam", "error": "it cannot", "step_s": ()}),
]


def write(path):
    open_file(path, MACHINE)
    for record in RECORDS:
        append_record(path, record)


def test_records_read_back_as_they_were_written(tmp_path):
    write(tmp_path / "records")
    assert read_records(tmp_path / "records") == (MACHINE, RECORDS)


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path):
    path = tmp_path / "records"
    write(path)
    whole = path.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-cut])
        assert read_records(path) == (MACHINE, RECORDS[:-1])
        assert open_file(path, MACHINE) == RECORDS[:-1]
        append_record(path, RECORDS[-1])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[1:], r"records, line 1: the machine: cpu: this key is needed"),
        (lambda lines: [lines[0], "{}", *lines[1:]], r"records, line 2: .*'kind'"),
        (lambda lines: [*lines[:2], lines[2].replace("own:Task", "own").replace('"workers":2', '"workers":"x"')],
         r"records, line 3: workers = 'x': Input should be a valid integer"),
        (lambda lines: [lines[0], lines[1].replace('"bytes"', '"size"')], "records, line 2: bytes: this key is needed"),
        (lambda lines: [*lines[:1], "not JSON", *lines[1:]], r"records, line 2: Invalid JSON"),
        (lambda lines: lines[:0], r"records: holds no records; the first line must be the machine"),
    ],
)  # fmt: skip
def test_another_fault_names_file_and_line(change, said, tmp_path):
    path = tmp_path / "records"
    write(path)
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=said) as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_machine_is_left_alone(tmp_path):
    path = tmp_path / "records"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"records: was measured with threads = 1, here it is 2; give another file"):
        open_file(path, MACHINE.model_copy(update={"threads": 2}))
    assert path.read_bytes() == before
    assert open_file(path, MACHINE.model_copy(update={"started": "another day"})) == RECORDS
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        open_file(tmp_path, MACHINE)


def test_the_key_is_all_that_times_depend_on():
    keys = [record.key for record in RECORDS]
    assert len(set(keys)) == len(keys)
    assert STEP.model_copy(update={"step_s": (9.0,), "collectives": (), "error": "no"}).key == STEP.key
    for name, other in {"link_bps": None, "overlap": False, "options": {}, "agree": False, "bucket_bytes": 1}.items():
        assert STEP.model_copy(update={name: other}).key != STEP.key


def test_medians_and_spreads():
    assert median((3.0, 1.0, 2.0)) == 2
    assert spread((1.0, 2.0, 3.0, 4.0, 5.0)) == 2  # from 2 to 4
    assert str(median(())) == str(spread(())) == "nan"


# ---------------------------------------------------------------------------------------------------------------- jobs


def test_a_plan_is_a_file_and_what_is_left_of_it_lacks_what_was_measured():
    link = Link(link_bps=1e8, burst_bytes=1000)
    collectives = CollectiveJob(operations=("all-reduce", "broadcast"), sizes=(4, 8))
    jobs = (
        collectives,
        ComputeJob(task="mnist"),
        CodecJob(scheme="topk(density=0.01)", shape=(3, 4)),
        StepJob(task="mnist"),
    )
    plan = Plan(workers=4, link=link, jobs=jobs)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    singles = plan.left([]).jobs
    assert [str(job) for job in singles[:4]] == [
        "all-reduce of 4 B", "all-reduce of 8 B", "broadcast of 4 B", "broadcast of 8 B"
    ]  # fmt: skip
    assert singles[4:] == jobs[1:]
    done = [singles[i].blank(4, link) for i in (1, 4, 6)]
    assert Plan.left(plan, done).jobs == (singles[0], singles[2], singles[3], singles[5])
    assert plan.left([singles[0].blank(4, Link())]).jobs == singles  # it was measured without a link's shape
    read = [type(record).model_validate_json(record.model_dump_json()) for record in done]
    assert [record.key for record in read] == [record.key for record in done]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"unit": "model"}, "unit = 'model' is larger than message = 'bucket'"),
        ({"overlap": True, "agree": False}, "overlap = true needs agree = true"),
        ({"overlap": True, "bucket_bytes": 10}, "first_bucket_bytes = 1048576: with overlap it must be"),
        ({"scheme": "topk(density=2)"}, "density"),
        ({"warmup": 2}, "greater than or equal to 3"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_be_done_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        StepJob(task="mnist", **given)


# -------------------------------------------------------------------------------------------------------------- phases


class Hands(Clock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.now = 100.0

    def mark(self) -> float:
        return self.now

    def go(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def exchange(
    clock: Hands, watch: MarkingWatch, message: int, parts: list[tuple[float, float, list[Collective]]]
) -> None:
    """Work, exchange and so on for such times, and decode for 16 s."""
    watch.begin(message)
    for work_s, network_s, log in parts:
        clock.go(work_s)
        with watch.launched():
            clock.go(network_s)
        if log:
            watch.exchanged(log)
    clock.go(16)
    watch.end(message)


def collective(operation, round_, *sent):
    return Collective(operation, round_, "bytes", sent)


TWO_ROUNDS = [
    (1.0, 0.25, [collective("all-gather", 0, 4, 4)]),  # the agreement
    (2.0, 0.5, []),  # sizes, and what they are sizes of
    (4.0, 0.125, [collective("all-gather", 0, 8, 8), collective("all-gather", 0, 10, 20)]),
    (8.0, 1.0, [collective("broadcast", 1, 0, 30)]),
]


def test_work_lies_between_the_collectives_and_belongs_to_their_rounds():
    clock = Hands()
    watch = MarkingWatch(clock)
    exchange(clock, watch, 3, TWO_ROUNDS)
    (found,) = watch.exchanges
    encode, between, decode = (sum(b - a for a, b in spans) for spans in work_of(found, clock, found.begin))
    assert (encode, between, decode) == (1 + 2 + 4, 8, 16)


def test_phases_without_overlap():
    clock = Hands()
    watch = MarkingWatch(clock)
    start, forward = clock.now, clock.go(3)
    clock.go(2)
    watch.ready(0)
    backward = clock.go(5)
    clock.go(0.5)  # what lies between messages counts as waiting
    exchange(clock, watch, 0, TWO_ROUNDS)
    exchanged, stop = clock.now, clock.go(6)
    found = phases(Marks(start, forward, backward, exchanged, stop), watch, clock, overlap=False)
    assert found.forward_s == 3
    assert found.backward_s == 7
    assert found.encode_s == 7
    assert found.decode_s == 8 + 16
    assert found.optimizer_s == 6
    assert found.communication_s == 1.875
    assert found.exposed_communication_s == 1.875 + 0.5
    assert found.step_s == 3 + 7 + 7 + 24 + 6 + 2.375
    assert found.ready_s == (5,)
    assert [tuple(launch) for launch in found.launches] == [
        ("all-gather", 0, 0, 4, 0.25),
        ("all-gather", 0, 0, 8, 0.5),
        ("all-gather", 0, 0, 15, 0.125),
        ("broadcast", 0, 1, 30, 1.0),  # the root's bytes, who alone hands over any
    ]


def test_what_is_worked_on_during_the_backward_pass_is_taken_off_it():
    """The first message is encoded from 4 to 5, travels until 7 and is decoded until 23; the last is ready at 10."""
    clock = Hands()
    watch = MarkingWatch(clock)
    start, forward = clock.now, clock.go(3)
    clock.go(1)
    watch.ready(0)
    exchange(clock, watch, 0, [(1.0, 2.0, [collective("all-reduce", 0, 4, 4)])])
    watch.ready_marks[1] = start + 10
    exchange(clock, watch, 1, [(1.0, 2.0, [collective("all-reduce", 0, 4, 4)])])
    exchanged, stop = clock.now, clock.go(6)
    found = phases(Marks(start, forward, exchanged, exchanged, stop), watch, clock, overlap=True)
    assert found.ready_s == (4, 10)
    assert found.backward_s == (10 - 3) - 1 - (10 - 7)
    assert (found.encode_s, found.decode_s, found.communication_s) == (2, 32, 4)
    assert found.step_s == 48
    # Of both transfers only the second, from 24 to 26, lies behind the backward pass.
    assert found.exposed_communication_s == 2


def test_operations_beyond_those_of_the_log_belong_to_its_last_entry():
    clock = Hands()
    watch = MarkingWatch(clock)
    buffers = [(1.0, 0.25, []), (0.0, 0.5, []), (0.0, 0.125, [collective("broadcast", 0, 9, 0)])]
    exchange(clock, watch, 0, buffers)
    stop = clock.go(1)
    watch.ready_marks[0] = 100.0
    found = phases(Marks(100.0, 100.0, 100.0, stop - 1, stop), watch, clock, overlap=False)
    assert [tuple(launch) for launch in found.launches] == [("broadcast", 0, 0, 9, 0.875)]
    assert found.encode_s == 1
