"""Profiles: measured costs in place of estimates, interpolated, marked where they are extrapolated."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.experiment import ExperimentError, load_experiment, validate_experiment
from gradwire.sim.profile import MeasuredWorkload, Profile, ProfileError, load_profile
from gradwire.sim.step.device import load_device
from gradwire.sim.step.measured import MeasuredCodec, family, find_codec
from gradwire.sim.step.overhead import Overhead, cost_of, cost_source, message_cost
from gradwire.sim.step.workload import WorkloadTimes
from gradwire.sim.tasks import make_task

TOPK = MeasuredCodec(
    scheme="ef(topk(density))",
    workers=4,
    densities=(0.01, 0.1),
    sizes=(1000, 100_000),
    encode_s=((1e-4, 1e-2), (2e-4, 2e-2)),
    between_s=((0.0, 0.0), (0.0, 0.0)),
    decode_s=((4e-5, 4e-4), (8e-5, 8e-3)),
    message_encode="1 ms",
    message_decode="3 ms",
)
SIGN = MeasuredCodec(
    scheme="scaledsign", dims=2, workers=4, sizes=(64,), encode_s=((5e-6,),), between_s=((0.0,),), decode_s=((8e-6,),)
)
TIMES = {"layers": [{"name": n, "forward": "1 ms", "backward": "2 ms"} for n in ("1", "3", "5")]}
CLUSTER = {"bandwidth": "1 Gbit/s", "latency": "10 us", "launch": "100 us"}


def charges(codecs, scheme, shape, units=1, workers=4):
    overhead = Overhead(codecs=codecs)
    return cost_of(Work(scheme, shape, units), overhead, load_device("v100"), workers=workers)


def test_costs_are_those_that_were_measured_and_between_them_a_power_law():
    """100 times as large is 100 times as long, so ten times as large is ten times as long; likewise by density."""
    text = "ef(topk(density=0.01))"
    found = {c.phase: c.seconds for c in charges((TOPK,), text, (1000,))}
    assert found == pytest.approx({"encode": 1e-4, "decode": 1e-5})  # of one of four payloads
    middle = {c.phase: c.seconds for c in charges((TOPK,), text, (10_000,), units=3)}
    assert middle == pytest.approx({"encode": 3e-3, "decode": 3e-5 * math.sqrt(10)})
    density = charges((TOPK,), f"ef(topk(density={math.sqrt(0.001)!r}))", (1000,))
    assert density[0].seconds == pytest.approx(1e-4 * math.sqrt(2))
    assert {c.origin for c in density} == {"measured"}


@given(st.integers(1000, 100_000), st.floats(0.01, 0.1))
def test_interpolated_costs_lie_between_their_neighbours(elements, density):
    cost = TOPK.cost(elements, density)
    assert 1e-4 * (1 - 1e-9) <= cost.encode_s <= 2e-2 * (1 + 1e-9)
    assert not cost.extrapolated
    assert TOPK.cost(elements, 0.01).encode_s <= cost.encode_s * (1 + 1e-12)


@pytest.mark.parametrize(
    ("elements", "density", "seconds"),
    [(300_000, 0.01, 3e-2), (10, 0.01, 1e-4), (1000, 0.5, 2e-4), (1000, 0.001, 1e-4)],
)
def test_beyond_what_was_measured_costs_are_marked(elements, density, seconds):
    found = charges((TOPK,), f"ef(topk(density={density}))", (elements,))
    assert {c.origin for c in found} == {"extrapolated"}
    assert found[0].seconds == pytest.approx(seconds)


def test_other_workers_and_other_kinds_of_units_are_extrapolated():
    assert {c.origin for c in charges((TOPK,), "ef(topk(density=0.01))", (1000,), workers=8)} == {"extrapolated"}
    assert {c.origin for c in charges((SIGN,), "scaledsign", (64,))} == {"extrapolated"}
    assert {c.origin for c in charges((SIGN,), "scaledsign", (8, 8))} == {"measured"}


def test_what_was_not_measured_is_estimated_as_ever_and_given_costs_come_first():
    assert charges((TOPK,), "qsgd(bits=4)", (1000,)) == charges((), "qsgd(bits=4)", (1000,))
    assert find_codec((TOPK,), "topk(density=0.01)", (1000,)) is None
    given_s = cost_of(
        Work("ef(topk(density=0.01))", (1000,), 1), Overhead(codecs=(TOPK,), encode_fixed="1 s"), load_device("v100")
    )
    assert [(c.seconds, c.origin) for c in given_s] == [(1.0, "given")]
    assert message_cost([Work("ef(topk(density=0.01))", (10,), 1)], Overhead(codecs=(TOPK,))) == (1e-3, 3e-3)
    assert message_cost([Work("qsgd", (10,), 1)], Overhead(codecs=(TOPK,))) == (0, 0)


def test_the_source_of_costs_says_what_was_measured_and_what_is_beyond():
    def log(elements, workers):
        gather = Collective("all-gather", 0, "bytes", (8,) * workers)
        return (MessageLog(0, (Work("ef(topk(density=0.01))", (elements,), 1),), (gather,)),)

    overhead, device = Overhead(codecs=(TOPK,)), load_device("v100")
    assert cost_source([log(1000, 4)], overhead, device) == "measured"
    assert cost_source([log(1000, 3)], overhead, device) == "extrapolated beyond what was measured"
    both = cost_source([log(1000, 4), log(10, 4)], overhead, device)
    assert both == "measured and extrapolated beyond what was measured"


def test_families_leave_one_density_open():
    assert family("topk") == ("topk(density)", 0.01)
    assert family("topk(density=0.1) | qsgd(bits=4)")[0] == "topk(density) | qsgd(bits=4)"
    assert family("powersgd(rank=4)") == ("powersgd(rank=4)", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": (1000, 1000)}, "rising"),
        ({"densities": (0.01,)}, "1 rows"),
        ({"encode_s": ((1e-4,), (1e-4,))}, "2 numbers"),
        ({"encode_s": ((1e-4, -1.0), (1e-4, 1.0))}, "greater than or equal to 0"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        MeasuredCodec.model_validate(TOPK.model_dump() | change)


def profile():
    workload = MeasuredWorkload(
        task="mnist", batch_size=16, workers=4, times=WorkloadTimes.model_validate(TIMES | {"source": "measured"})
    )
    return Profile.model_validate(
        {
            "description": "two hosts",
            "machine": {"cpu": "some"},
            "cluster": CLUSTER
            | {"measured": [{"operation": "all-reduce", "from": "0 B", "to": "1 kB", "workers": [2, 4]}]},
            "workloads": (workload,),
            "codecs": (TOPK,),
            "errors": {"all-reduce, median": 0.02},
        }
    )


def test_a_profile_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(profile().to_toml())
    assert load_profile(path) == profile()


def test_an_experiment_takes_from_its_profile_what_it_does_not_say_itself(tmp_path):
    (tmp_path / "lab.toml").write_text(profile().to_toml())
    file = tmp_path / "mine.toml"
    file.write_text('profile = "lab.toml"\nschemes = ["dense"]\n[training]\nbatch_size = 16\nworkers = 4\n')
    experiment = load_experiment(file)
    assert experiment.cluster.cluster() == profile().cluster
    assert experiment.workload.times == profile().workloads[0].times
    assert experiment.overhead.codecs == (TOPK,)
    own = load_experiment(file, ["cluster.preset=ethernet-1g", "workload.device=a100", "overhead.codecs=[]"])
    assert own.cluster.label == "ethernet-1g"
    assert own.workload.times is None
    assert own.overhead.codecs == ()
    # what is written out is complete: it needs the profile's file no more
    again = tmp_path / "elsewhere.toml"
    again.write_text(experiment.to_toml(make_task("mnist", {})))
    (tmp_path / "lab.toml").unlink()
    read = load_experiment(again)
    assert (read.cluster.cluster(), read.workload, read.overhead) == (
        experiment.cluster.cluster(),
        experiment.workload,
        experiment.overhead,
    )


def test_an_option_at_its_default_is_the_same_model():
    assert profile().workload("mnist", {"network": "mlp"}, 16) is not None
    with pytest.raises(
        ProfileError, match=r"no times of mnist with batch_size = 16, network = cnn; there are those of"
    ):
        profile().workload("mnist", {"network": "cnn"}, 16)


def test_a_profile_without_the_times_that_are_needed_is_refused_in_one_line(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(profile().to_toml())
    with pytest.raises(InputError, match=r"no times of mnist with batch_size = 32; .*batch_size = 16"):
        validate_experiment({"profile": str(path), "schemes": ["dense"]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster = ", "no valid TOML"),
        ("speed = 1", "speed: unknown key"),
        ("[[codecs]]\nscheme = 'topk'", "codecs.0.workers: this key is needed"),
    ],
)
def test_profiles_that_cannot_be_read_say_why(tmp_path, text, words):
    path = tmp_path / "lab.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=words):
        load_profile(path)
    with pytest.raises(ExperimentError, match=words):
        validate_experiment({"profile": str(path), "schemes": ["dense"]})


def test_a_missing_profile_is_one_line(tmp_path):
    with pytest.raises(ProfileError, match=r"profile .*none.toml cannot be read: No such file"):
        load_profile(tmp_path / "none.toml")
