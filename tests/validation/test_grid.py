"""The grid: all combinations, and measurements to calibrate on that cover what its steps need."""

import math
from itertools import pairwise, product

import pytest

from gradwire.analysis.measurement.jobs import Link
from gradwire.analysis.validation.grid import (
    SCHEMES,
    SUBJECTS,
    Grid,
    Subject,
    codec_jobs,
    collective_jobs,
    compute_jobs,
    make_grid,
    partition_of,
    wire_log,
)
from gradwire.compressors.errors import InputError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.step.measured import family

SMALL = Subject(options={"hidden": "20,10"}, batch_size=8)
QUADRATIC = Subject(task="quadratic", batch_size=4)


def grid(**given) -> Grid:
    return make_grid({"subjects": (SMALL, QUADRATIC), "schemes": ("dense", "topk(density=0.01)"), **given})


def test_the_steps_are_all_combinations_once():
    found = grid(overlap=(False, True), links_bps=(1e8, 1e9), repeats=7, warmup=4)
    steps = found.steps()
    expected = product((SMALL, QUADRATIC), ("dense(dtype=native)", "topk(density=0.01)"), (False, True))
    assert {(step.task, step.batch_size, step.scheme, step.overlap) for step in steps} == {
        (subject.task, subject.batch_size, scheme, overlap) for subject, scheme, overlap in expected
    }
    assert len(steps) == len({step.blank(4, Link()).key for step in steps}) == 8
    assert found.size() == 2 * 8
    assert {(step.repeats, step.warmup, step.agree) for step in steps} == {(7, 4, True)}


def test_the_default_grid_has_both_networks_and_all_schemes_of_the_table():
    found = make_grid({"links_bps": (1e8, 3e8, 1e9)})
    assert found.size() == 3 * len(SUBJECTS) * len(SCHEMES) >= 60
    assert found.schemes == tuple(str(parse_scheme(text)) for text in SCHEMES)
    elements = [sum(map(math.prod, subject.shapes().values())) for subject in SUBJECTS]
    assert elements[0] == 266_610
    assert elements[1] >= 5e6


def test_schemes_are_canonical_and_the_same_one_counts_once():
    found = grid(schemes=("dense", "topk( density = 1e-2 )", "topk(density=0.01)", "dense(dtype=native)", "topk"))
    assert found.schemes == ("dense(dtype=native)", "topk(density=0.01)")


def test_subjects_have_the_shapes_of_what_is_trained():
    assert SMALL.shapes() == {
        "1.weight": (20, 784),
        "1.bias": (20,),
        "3.weight": (10, 20),
        "3.bias": (10,),
        "5.weight": (10, 10),
        "5.bias": (10,),
    }
    assert SMALL.label == "mnist(hidden=20,10)"
    assert QUADRATIC.label == "quadratic"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 1}, ("workers", "1", "greater than or equal to 2")),
        ({"repeats": 2}, ("repeats", "2", "greater than or equal to 3")),
        ({"warmup": 0}, ("warmup", "0", "greater than or equal to 3")),
        ({"schemes": ()}, ("schemes", "at least 1")),
        ({"schemes": ("topk(density=2)",)}, ("density", "2")),
        ({"schemes": ("topkk",)}, ("topkk", "did you mean")),
        ({"subjects": (Subject(), {"task": "mnist", "batch_size": 0})}, ("batch_size", "0", "greater than or equal")),
        ({"rates": (1e8,)}, ("rates",)),
    ],
)
def test_a_fault_is_one_line(given, said):
    with pytest.raises(InputError) as caught:
        grid(**given)
    (line,) = str(caught.value).splitlines()
    assert all(part in line for part in said), line


def test_an_unknown_task_is_one_line():
    with pytest.raises(InputError, match="task.name = 'mnits': no such task; did you mean 'mnist'"):
        Subject(task="mnits").shapes()


# --------------------------------------------------------------------------------------------------------- calibration


def test_each_subjects_computation_is_measured():
    assert [(job.task, job.options, job.batch_size) for job in compute_jobs(grid())] == [
        (subject.task, subject.options, subject.batch_size) for subject in (SMALL, QUADRATIC)
    ]


def test_collectives_are_measured_for_all_sizes_that_steps_exchange():
    found = grid(schemes=("dense", "topk(density=0.5)", "powersgd(rank=2)"))
    sizes = {job.operations: job.sizes for job in collective_jobs(found)}
    needed: dict[tuple[str], list[int]] = {}
    for step in found.steps():
        shapes = Subject(task=step.task, options=step.options, batch_size=step.batch_size).shapes()
        for message in wire_log(step, shapes, found.workers):
            for collective in message.collectives:
                needed.setdefault((collective.operation,), []).extend(collective.sent_bytes)
    assert needed.keys() == sizes.keys() == {("all-reduce",), ("all-gather",)}
    for operation, own in needed.items():
        measured = sizes[operation]
        assert max(own) <= measured[-1] < 1.1 * max(own) + 16
        assert measured[0] <= max(16, min(own))
        assert list(measured) == sorted(set(measured))
        assert max(b / a for a, b in pairwise(measured)) <= 4 + 1e-9
    assert not any(size % (4 * found.workers) for size in sizes["all-reduce",])


def test_codecs_are_measured_at_every_density_and_beyond_no_end_of_the_sizes():
    found = grid(schemes=("topk(density=0.01)", "topk(density=0.1)", "qsgd(bits=4)"))
    jobs = codec_jobs(found)
    for scheme in found.schemes:
        for dims in (1, 2):
            own = [
                math.prod(shape)
                for subject in found.subjects
                for shape in subject.shapes().values()
                if min(len(shape), 2) == dims
            ]
            measured = [math.prod(job.shape) for job in jobs if job.scheme == scheme and min(len(job.shape), 2) == dims]
            assert min(measured) <= min(own)
            assert max(measured) >= max(own)
    assert {family(job.scheme) for job in jobs} == {family(scheme) for scheme in found.schemes}
    assert {job.repeats for job in jobs} == {found.repeats}


def test_the_agreement_is_a_gather_of_four_bytes_before_each_message():
    (step, *_) = grid().steps()
    shapes = SMALL.shapes()
    told, *_ = wire_log(step, shapes, 4)[0].collectives
    assert (told.operation, told.round, told.sent_bytes) == ("all-gather", 0, (4, 4, 4, 4))
    alone = step.model_copy(update={"agree": False})
    assert [message.collectives for message in wire_log(alone, shapes, 4)] == [
        message.collectives[1:] for message in wire_log(step, shapes, 4)
    ]
    assert len(partition_of(step, shapes).messages) == len(wire_log(step, shapes, 4))
