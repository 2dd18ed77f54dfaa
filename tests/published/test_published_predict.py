"""Predictions of published runs: against formulas, and which tensors travel together."""

import pytest

from gradwire.analysis.published.messages import group, step_of, to_neighbours
from gradwire.analysis.published.models import Tensor
from gradwire.analysis.published.predict import Predictor
from gradwire.analysis.published.sets import Schedule, Terms, read_sets
from gradwire.analysis.published.table import read_runs
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.step.device import load_device
from gradwire.sim.step.workload import Layer, Workload

RUNS, SETS = read_runs(), read_sets()
TERMS = Terms(inside="40 Gbit/s", between="5 Gbit/s", latency="20 us", launch="300 us")


def predictor() -> Predictor:
    return Predictor(RUNS, SETS.schedules)


def test_one_message_after_the_backward_pass_by_hand():
    """Compute as measured, copies into and out of the buffer, and a ring over the hosts' links."""
    run = RUNS["onebit-bert-large-ethernet-32"]
    size = 2 * 336_226_108
    copies_s = 4 * size / load_device("v100").memory
    ring_s = 300e-6 + 2 * 31 * (20e-6 + size / 32 * 8 / 5e9)
    said = predictor().step_s(run, SETS.sets[run.set], TERMS)
    assert said == pytest.approx((37.91 + 60.71 + 75.63) / 1e3 + copies_s + ring_s, rel=1e-6)


def test_tensors_of_one_host_by_hand():
    """A message a tensor: each starts when it is ready and the one before is through; nothing is copied."""
    run = RUNS["ddl-bert-large-10gbe-wfbp-4"]
    terms = Terms(inside="1 Gbit/s", launch="1 ms")
    said = predictor().step_s(run, SETS.sets[run.set], terms)
    ring_s = 1.5 * 4 * 336_226_108 * 8 / 1e9 + 398 * 1e-3  # so slow that it never waits for the backward pass
    forward_s, backward_s, optimizer_s = 0.05193, 0.10386, 0.00748
    assert forward_s + ring_s + optimizer_s < said < forward_s + backward_s + ring_s + optimizer_s


def test_the_slowest_of_ports_links_and_caps_binds():
    run = RUNS["ddl-bert-large-ib-bsp-16"]
    of = SETS.sets[run.set]
    by_port = predictor().step_s(run, of, Terms(inside="20 Gbit/s", latency="1 us"))
    by_cap = predictor().step_s(run, of, Terms(inside="200 Gbit/s", between="20 Gbit/s", latency="1 us"))
    by_share = predictor().step_s(run, of, Terms(inside="200 Gbit/s", share=0.2, latency="1 us"))
    assert by_port == pytest.approx(by_cap, rel=1e-6)
    assert by_share == pytest.approx(by_cap, rel=1e-9)


def test_what_only_hosts_compress_takes_a_hosts_own_time_on_one_host():
    run = RUNS["espresso-vgg16-hipress-8"]
    assert predictor().step_s(run, SETS.sets[run.set], Terms(between="9 Gbit/s")) == pytest.approx(0.190, rel=1e-12)


def test_compute_of_another_batch_is_in_proportion():
    run = RUNS["espresso-vgg16-espresso-8"]
    assert predictor().alone_s(run, SETS.sets[run.set]) == pytest.approx(606.56e-3 / 4, rel=1e-12)


# --------------------------------------------------------------------------------------------------------- grouping

WORK = Workload(tuple(Layer(str(i), (str(i),), 100, 1.0, 1.0) for i in range(6)), 0.0, "made up")
"""Six layers of which each takes a second in either pass."""
TENSORS = tuple(Tensor(str(5 - i), (100,), i) for i in range(6))


def grouped(start_up_s: float, byte_s: float, **keys: object) -> list[int]:
    schedule = Schedule.model_validate({"source": "made up"} | keys)
    groups = group(schedule, TENSORS, 4, WORK, lambda size: start_up_s + size * byte_s)
    assert [tensor for own in groups for tensor in own] == list(TENSORS)
    return [len(own) for own in groups]


@pytest.mark.parametrize(
    ("start_up_s", "byte_s", "expected"),
    [
        (0.5, 0.0, [1, 1, 1, 1, 1, 1]),  # each is through before the next is ready
        (1.5, 0.0, [6]),  # the next is always ready before the start-up is over
        # The first travels from 1 to 2.6 s. The third is ready at 3 < 2.6 + 0.6, the fourth not before 3 + 0.6. These
        # two travel until 5.6 s, and the last tensors are ready before 5.6 + 0.6.
        (0.6, 1 / 400, [1, 2, 3]),
    ],
)
def test_merging_as_mg_wfbp_does(start_up_s, byte_s, expected):
    assert grouped(start_up_s, byte_s, messages="merged") == expected


def test_other_groups():
    assert grouped(1, 1, messages="one") == [6]
    assert grouped(1, 1, messages="tensors") == [1] * 6
    assert grouped(1, 1, messages="buckets", bucket="800 B") == [2, 2, 2]
    assert grouped(1, 1, messages="buckets", bucket="1600 B", first_bucket="400 B") == [1, 4, 1]


def test_large_tensors_are_compressed_in_slices():
    big = Tensor("big", (5, 2**19), 0)
    (message,), ready = step_of(((big,),), parse_scheme("int8"), 4, {})
    assert ready == (0,)
    assert sorted((work.shape, work.units) for work in message.work) == [((2**19,), 1), ((2**20,), 2)]


def test_neighbours_get_what_would_be_gathered():
    log = step_of(((Tensor("w", (1000,), 0),),), parse_scheme("int8"), 4, {}).log
    (gather,) = log[0].collectives
    right, left = to_neighbours(log, 4)[0].collectives
    assert gather.operation == "all-gather"
    assert (right.peers, left.peers) == ((1, 2, 3, 0), (3, 0, 1, 2))
    assert right.sent_bytes == left.sent_bytes == gather.sent_bytes
