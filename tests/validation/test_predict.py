"""Predictions of measured steps against sums worked by hand from a profile that was made by hand."""

import pytest

from gradwire.analysis.measurement.jobs import StepJob
from gradwire.analysis.validation.predict import PHASES, predict_step
from gradwire.compressors.errors import InputError
from gradwire.sim.profile import Profile

WORKERS = 4
TOPK = "topk(density=0.1, coding=raw)"
HEADER = 8
"""Bytes before the indices of each unit."""
SHAPES = {"a.weight": (30, 20), "b.weight": (400,)}
"""600 and 400 values."""
JOB = StepJob(task="own:Task", batch_size=8, options={"size": 3})
LATENCY_S, LAUNCH_S, BIT_S = 1e-4, 1e-3, 1e-6
MESSAGE_S = {"encode": 0.25, "decode": 0.5}
UNIT_S = {"a": {"encode": 0.03, "decode": 0.08}, "b": {"encode": 0.02, "decode": 0.04}}


def codec(dims: int, name: str) -> dict[str, object]:
    """Return what was measured of units as large as a layer's."""
    size = {"a": 600, "b": 400}[name]
    return {
        "scheme": "topk(density, coding=raw)",
        "dims": dims,
        "workers": WORKERS,
        "densities": [0.01, 0.1],
        "sizes": [size],
        "encode_s": [[UNIT_S[name]["encode"]]] * 2,
        "between_s": [[0.0]] * 2,
        "decode_s": [[UNIT_S[name]["decode"]]] * 2,
        "message_encode": f"{MESSAGE_S['encode']} s",
        "message_decode": f"{MESSAGE_S['decode']} s",
    }


DATA = {
    "cluster": {
        "bandwidth": "1 Mbit/s",
        "latency": "100 us",
        "launch": "1 ms",
        "measured": [
            {"operation": operation, "from": "0 B", "to": "10 kB", "workers": [WORKERS, WORKERS]}
            for operation in ("all-reduce", "all-gather")
        ],
    },
    "workloads": [
        {
            "task": "own:Task",
            "options": {"size": 3},
            "batch_size": 8,
            "workers": WORKERS,
            "times": {
                "layers": [
                    {"name": "a", "forward": "1 ms", "backward": "3 ms"},
                    {"name": "b", "forward": "2 ms", "backward": "5 ms"},
                ],
                "optimizer": "7 ms",
            },
        }
    ],
    "codecs": [codec(2, "a"), codec(1, "b")],
}


def profile(**changes: object) -> Profile:
    return Profile.model_validate({**DATA, **changes})


def predicted(scheme: str, own: Profile, **job: object):
    asked = StepJob.model_validate({**JOB.model_dump(), "scheme": scheme, **job})
    return predict_step(asked, SHAPES, WORKERS, own)


def gather_s(sent_bytes: float) -> float:
    """A ring's all-gather among four: three times what a worker hands over, one transfer after the other."""
    return LAUNCH_S + 3 * (LATENCY_S + 8 * sent_bytes * BIT_S)


def reduce_s(sent_bytes: float) -> float:
    """A ring's all-reduce among four: six transfers of a quarter."""
    return LAUNCH_S + 6 * (LATENCY_S + 8 * sent_bytes / 4 * BIT_S)


def test_a_dense_step_is_computation_an_agreement_and_an_all_reduce():
    found = predicted("dense", profile())
    waits = gather_s(4) + reduce_s(4 * 1000)
    assert found.phases == pytest.approx(dict(zip(PHASES, (0.003, 0.008, 0, waits, 0, 0.007), strict=True)))
    assert found.step_s == pytest.approx(0.018 + waits)
    assert found.sent_bytes == 4 + 4000
    assert found.extrapolated == ()


def test_without_agreement_its_gather_is_left_out():
    found = predicted("dense", profile(), agree=False)
    assert found.phases["exposed_communication_s"] == pytest.approx(reduce_s(4000))
    assert found.sent_bytes == 4000


def test_a_sparse_step_costs_what_was_measured_of_its_units_and_its_message():
    """Of 600 and 400 values 60 and 40 are sent, each with an index of 4 bytes, and a header for each unit."""
    found = predicted(TOPK, profile())
    payload = HEADER + 40 * (4 + 4) + HEADER + 60 * (4 + 4)
    encode, decode = (MESSAGE_S[kind] + UNIT_S["a"][kind] + UNIT_S["b"][kind] for kind in ("encode", "decode"))
    waits = gather_s(4) + gather_s(payload)
    assert found.phases == pytest.approx(dict(zip(PHASES, (0.003, 0.008, encode, waits, decode, 0.007), strict=True)))
    assert found.step_s == pytest.approx(sum(found.phases.values()))
    assert found.sent_bytes == 4 + payload
    assert found.extrapolated == ()


def test_messages_of_a_unit_each_pay_for_message_and_agreement_each():
    found = predicted(TOPK, profile(), message="layer")
    both = {kind: 2 * MESSAGE_S[kind] + UNIT_S["a"][kind] + UNIT_S["b"][kind] for kind in ("encode", "decode")}
    assert found.phases["encode_s"] == pytest.approx(both["encode"])
    assert found.phases["decode_s"] == pytest.approx(both["decode"])
    assert found.phases["exposed_communication_s"] == pytest.approx(
        2 * gather_s(4) + gather_s(HEADER + 40 * 8) + gather_s(HEADER + 60 * 8)
    )


def test_phases_of_an_overlapped_step_add_up_to_less():
    """The last layer's message is exchanged while the first one's backward pass runs."""
    apart = predicted("dense", profile(), message="layer", bucket_bytes=1, first_bucket_bytes=1)
    beside = predicted("dense", profile(), message="layer", bucket_bytes=1, first_bucket_bytes=1, overlap=True)
    assert beside.step_s == pytest.approx(sum(beside.phases.values()))
    assert apart.step_s - beside.step_s == pytest.approx(0.003)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("scheme", "changes", "said"),
    [
        ("dense", {"cluster": None}, "the profile has no cluster; calibrate collectives too"),
        (
            "dense",
            {"workloads": ()},
            "no times of own:Task with batch_size = 8, size = 3; there are those of: none",
        ),
        (
            TOPK,
            {"codecs": ()},
            "scheme topk(density=0.1, coding=raw): the profile does not say what it costs; calibrate with it",
        ),
        (
            "qsgd(bits=4)",
            {},
            "scheme qsgd(bits=4): the profile does not say what it costs; calibrate with it",
        ),
        (
            "ef(topk(density=0.1, coding=raw))",
            {},
            "scheme ef(topk(density=0.1, coding=raw)): the profile does not say what it costs; calibrate with it",
        ),
    ],
)  # fmt: skip
def test_what_a_profile_lacks_is_said_in_one_line(scheme, changes, said):
    with pytest.raises(InputError) as caught:
        predicted(scheme, profile(**changes))
    assert str(caught.value) == said


def test_another_batch_was_not_measured():
    with pytest.raises(
        InputError, match="no times of own:Task with batch_size = 16, size = 3; there are those of: own"
    ):
        predicted("dense", profile(), batch_size=16)


# ------------------------------------------------------------------------------------------------------- extrapolation


def test_sizes_and_densities_beyond_the_codecs_are_named():
    found = predicted("topk(density=0.2, coding=raw)", profile())
    scheme = "topk(density=0.2, coding=raw)"
    assert found.extrapolated == (f"{scheme} on units of 30 x 20", f"{scheme} on units of 400")
    smaller = [codec(2, "a"), {**codec(1, "b"), "sizes": [300]}]
    found = predicted(TOPK, profile(codecs=smaller))
    assert found.extrapolated == (f"{TOPK} on units of 400",)


def test_sizes_beyond_the_clusters_are_named():
    ranges = [{**one, "to": "1 kB"} for one in DATA["cluster"]["measured"]]
    found = predicted("dense", profile(cluster={**DATA["cluster"], "measured": ranges}))
    assert found.extrapolated == (
        "all-reduce of 4000 to 4000 B among 4 workers was measured for 0 to 1000 B among 4 to 4 workers",
    )


def test_other_numbers_of_workers_are_named():
    found = predict_step(JOB, SHAPES, 2, profile())
    assert len(found.extrapolated) == 2
    assert all("among 2 workers was measured for" in one for one in found.extrapolated)
