"""Codecs: known costs of units and messages are found again; predictions have not seen what they predict."""

import numpy as np
import pytest

from gradwire.analysis.calibration.codecs import fit_codecs
from gradwire.analysis.calibration.plan import codec_plan, collective_plan, plan_calibration
from gradwire.analysis.measurement.jobs import CodecJob, CollectiveJob, ComputeJob
from gradwire.analysis.measurement.records import CodecRecord
from gradwire.compressors.errors import InputError
from gradwire.sim.step.measured import family

MESSAGE = np.array([40e-6, 0.0, 20e-6])


def unit_s(elements, density):
    """A power law in both."""
    return np.array([2e-9 * elements, 0.0, 1e-7 * elements**0.5 * (density or 1) ** 0.25])


def record(scheme, shape, units=1, workers=4, factor=1.0):
    _, density = family(scheme)
    encode, between, decode = (MESSAGE + units * unit_s(np.prod(shape), density)) * factor
    return CodecRecord(
        scheme=scheme,
        shape=shape,
        units=units,
        workers=workers,
        encode_s=(encode, 9 * encode, encode / 2),  # the median of three repeats
        between_s=(between,),
        decode_s=(decode,),
    )


def topk(sizes=(100, 1000, 10_000, 100_000), densities=(0.01, 0.03, 0.1)):
    return [record(f"topk(density={density})", (size,)) for density in densities for size in sizes]


def test_costs_of_units_and_of_the_message_are_found_again():
    several = [record("topk(density=0.01)", (size,), units=4) for size in (100, 10_000)]
    (codec,) = fit_codecs(topk() + several).codecs
    assert (codec.scheme, codec.dims, codec.workers) == ("topk(density)", 1, 4)
    assert codec.message_encode == pytest.approx(MESSAGE[0])
    assert codec.message_decode == pytest.approx(MESSAGE[2])
    for density in (0.01, 0.02, 0.1):
        for size in (100, 300, 100_000):
            found = codec.cost(size, density)
            assert (found.encode_s, found.between_s, found.decode_s) == pytest.approx(unit_s(size, density), rel=1e-6)
            assert not found.extrapolated


def test_each_inner_size_and_density_is_predicted_without_itself():
    several = [record("topk(density=0.01)", (100,), units=4)]
    errors = fit_codecs(topk() + several).errors["topk(density), vectors"]
    assert errors.cases == 2 * 3 + 1 * 4
    assert errors.worst < 1e-6
    slow = [record("topk(density=0.1)", (1000,), factor=3.0)]
    doubtful = [one for one in topk() + several if (one.scheme, one.shape) != ("topk(density=0.1)", (1000,))]
    errors = fit_codecs(doubtful + slow).errors["topk(density), vectors"]
    assert errors.worst > 0.3


def test_matrices_vectors_families_and_workers_are_apart():
    found = fit_codecs(
        [
            record("qsgd(bits=4)", (64,)),
            record("qsgd(bits=4)", (8, 8)),
            record("qsgd(bits=4)", (4, 4, 4)),
            record("qsgd(bits=8)", (64,)),
            record("qsgd(bits=4)", (64,), workers=8),
        ]
    )
    kinds = [(codec.scheme, codec.dims, codec.workers, codec.sizes, codec.densities) for codec in found.codecs]
    assert kinds == [
        ("qsgd(bits=4)", 1, 4, (64,), ()),
        ("qsgd(bits=4)", 2, 4, (64,), ()),
        ("qsgd(bits=8)", 1, 4, (64,), ()),
        ("qsgd(bits=4)", 1, 8, (64,), ()),
    ]
    assert found.errors == {}


def test_sizes_that_were_not_measured_at_all_densities_are_left_out_and_none_is_refused():
    (codec,) = fit_codecs(topk()[:-1]).codecs
    assert codec.sizes == (100, 1000, 10_000)
    with pytest.raises(InputError, match=r"codecs: topk\(density\), vectors: no size was measured at all of its 2"):
        fit_codecs([record("topk(density=0.01)", (10,)), record("topk(density=0.1)", (20,))])


def test_the_plan_covers_all_units_twice_a_decade_at_all_densities():
    shapes = [(10,), (1000,), (64, 32), (256, 64, 3, 3)]
    jobs = codec_plan(["topk(density=0.01)", "topk(density=0.1)", "layers(qsgd, vectors=True)"], shapes)
    single = {(job.scheme, job.shape) for job in jobs if job.units == 1}
    for density in (0.01, 0.1):
        assert [s for t, s in sorted(single) if t == f"topk(density={density})" and len(s) == 1] == [
            (10,), (32,), (100,), (316,), (1000,)
        ]  # fmt: skip
    matrices = sorted((s for t, s in single if t == "qsgd(bits=4)"), key=np.prod)
    assert matrices[0] == (64, 32)
    assert matrices[-1] == (256, 576)
    ratios = np.diff([np.log10(np.prod(shape)) for shape in matrices])
    assert ratios.max() < 0.55
    assert {job.scheme for job in jobs if len(job.shape) == 1} == {
        "topk(density=0.01)",
        "topk(density=0.1)",
        "dense(dtype=native)",
    }
    assert {job.units for job in jobs} == {1, 4}


def test_collectives_are_planned_up_to_the_largest_message_and_after_rests_if_asked_for():
    plain, many = collective_plan(["all-gather", "all-to-all"], 5_000_000, 3)
    assert plain.sizes[0] == 4
    assert plain.sizes[-1] == 2**23
    assert all(size % 12 == 0 for size in many.sizes)
    assert [job.pause_s for job in collective_plan(["all-reduce"], 100, 4, rest_s=0.5)] == [0.5, 0.0]


def test_a_task_is_planned_with_all_that_its_schemes_need():
    jobs = plan_calibration("mnist", {}, ["powersgd", "oktopk(density=0.01)"], 4, 32)
    operations = [job.operations[0] for job in jobs if isinstance(job, CollectiveJob)]
    assert operations == ["all-reduce", "all-gather", "all-to-all"]
    assert [job.task for job in jobs if isinstance(job, ComputeJob)] == ["mnist"]
    assert {job.scheme for job in jobs if isinstance(job, CodecJob)} == {"powersgd(rank=4)", "oktopk(density=0.01)"}
