"""Timelines: small steps by hand, any step by its longest path, and both engines against each other."""

import itertools
import math
from functools import cache
from math import ceil, log2, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster.cluster import make_cluster as make_from_keys
from gradwire.sim.step.device import Device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import plan_steps, timeline
from gradwire.sim.step.workload import Layer, Workload

from .toysteps import DEVICE, GIVEN, PASSES, PHASES, SLOW, TWO_LAYERS, gathered, make_cluster, parse, play

# ----------------------------------------------------------------------------------------------------------- by hand

TWO_GATHERS = (gathered(0, (4, 4)), gathered(1, (4, 4)))
"""Each takes 0.25 + 0.5 + 4 s; its two payloads are decoded in 0.25 s each."""


@pytest.mark.parametrize("engine", ["closed-form", "events"])
def test_two_messages_by_hand(engine):
    """Forward 0-2, backward b 2-4, encode 4-4.5, a 4.5-7.5, encode 7.5-8, gathers 4.5-9.25-14, decode, decode -14.5."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine)
    assert run.step_s == pytest.approx([15.5], rel=1e-12)
    assert [getattr(run, phase)[0] for phase in PHASES] == pytest.approx([2, 5, 1, 1, 1, 1.25 + 4.25], rel=1e-12)
    assert run.communication_s == pytest.approx([9.5], rel=1e-12)
    assert run.sent_bytes == [8]


@pytest.mark.parametrize("engine", ["closed-form", "events"])
def test_without_overlap_the_backward_pass_comes_first(engine):
    """Backward 2-7, encode 7-7.5-8, gathers 7.5-12.25-17, decodes 12.25-12.75 and 17-17.5."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, overlap=False)
    assert run.step_s == pytest.approx([18.5], rel=1e-12)
    assert run.exposed_communication_s == pytest.approx([4.25 + 4.25], rel=1e-12)


@pytest.mark.parametrize("engine", ["closed-form", "events"])
def test_what_happens_when(engine):
    run = play([TWO_GATHERS] * 2, (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine)
    spans = [span for span in run.spans(1) if span.worker == 0]
    compute = [(s.name, s.start_s - 15.5, s.end_s - 15.5) for s in spans if s.resource == "compute"]
    assert compute == [
        ("forward", 0, 2),
        ("backward 0", 2, 4),
        ("encode 0", 4, 4.5),
        ("backward 1", 4.5, 7.5),
        ("encode 1", 7.5, 8),
        ("decode 0", 9.25, 9.75),
        ("decode 1", 14, 14.5),
        ("optimizer", 14.5, 15.5),
    ]
    network = [(s.name, s.start_s - 15.5, s.end_s - 15.5) for s in spans if s.resource == "network"]
    assert network == [("exchange 0", 4.5, 9.25), ("exchange 1", 9.25, 14)]


def test_every_worker_shows_in_the_event_engine():
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine="events")
    of_worker = [[span[1:] for span in run.spans(0) if span.worker == worker] for worker in range(3)]
    assert of_worker[0] == of_worker[1] != []
    assert of_worker[2] == []


def test_two_rounds_by_hand():
    """Both first rounds come before any second one; the work between waits until the backward pass is over."""
    rounds = tuple(Collective("all-reduce", r, "float32", (8, 8)) for r in (0, 1))
    step = (MessageLog(0, (Work("rounds", (1,), 1),), rounds), gathered(1, (2, 3)))
    instant = Device(name="toy", peak="1 TFLOP/s", efficiency=1, memory="4 TB/s", kernel_launch="1 s")
    cluster = make_cluster(8.0, 0.0, 0.0)
    run = timeline([step], (0, 1), TWO_LAYERS, cluster, Overhead(), instant, parse=parse)
    # forward 0-2, b 2-4, encode 4-5, a 5-8, encode 8-9; reduce 5-13, gather 13-16, between 13-14, reduce 16-24,
    # decode of the gather 16-18, of the second round 24-25; optimizer
    spans = {span.name + f" {span.resource}": (span.start_s, span.end_s) for span in run.spans(0)}
    assert spans["between 0 compute"] == pytest.approx((13, 14))
    assert spans["decode 1 compute"] == pytest.approx((16, 18))
    assert spans["exchange 0 network"] == pytest.approx((16, 24))
    assert spans["decode 0 compute"] == pytest.approx((24, 25))
    assert run.step_s == pytest.approx([26])


def make(**keys):
    return make_from_keys(keys)


def test_an_idle_step_costs_what_it_computes():
    step = (MessageLog(0, (Work("gathered", (9,), 1),), ()), MessageLog(1, (), ()))
    for engine in ("closed-form", "events"):
        run = play([step], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine)
        assert (run.step_s, run.sent_bytes, run.communication_s) == (8, 0, 0)


def test_one_bucket_waits_for_the_last_gradient_whatever_its_message():
    """With ready = (1, 0) message 0 is complete last: all goes when the backward pass is over, at 7 s."""
    run = play([TWO_GATHERS], (1, 0), TWO_LAYERS, SLOW, GIVEN, one_bucket_first=True)
    exchange = next(span for span in run.spans(0) if span.resource == "network")
    assert exchange.start_s == pytest.approx(8)  # two units were encoded, in half a second each
    assert exchange.end_s == pytest.approx(8 + 0.25 + 0.5 + 8)


def test_steps_that_send_nothing_are_played_among_others():
    quiet = (MessageLog(0, (), ()),)
    run = play([quiet, TWO_GATHERS, quiet], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine="events")
    assert run.step_s == pytest.approx([8, 15.5, 8], rel=1e-12)
    assert run.carried_bytes.tolist() == [8, 8, 8, 8]


def test_a_profile_of_one_hosts_link_needs_no_number_of_hosts():
    """Both gathers at a quarter of the rate: 0.25 + 0.5 + 16 s each, 4.5-21.25-38, decode, optimizer."""
    profile = [{"link": "host1 up", "times": ["0 s"], "factors": [0.25]}]
    cluster = make(bandwidth="8 bit/s", latency="500 ms", launch="250 ms", profile=profile)
    run = timeline([TWO_GATHERS], (0, 1), TWO_LAYERS, cluster, GIVEN, DEVICE, parse=parse)
    assert (run.engine, run.step_s) == ("events", pytest.approx([38 + 0.5 + 1]))


# ------------------------------------------------------------------------------------------- by the longest path


@st.composite
def runs(draw):
    """A workload, messages of one step with any collectives in any rounds, and a cluster."""
    seconds = st.one_of(st.just(0.0), st.floats(1e-6, 2.0))
    layers = draw(st.integers(1, 4))
    workload = Workload(
        tuple(Layer(f"layer {i}", (f"{i}",), 1, draw(seconds), draw(seconds)) for i in range(layers)),
        draw(seconds),
        "drawn",
    )
    workers = draw(st.integers(1, 5))
    messages = draw(st.integers(0, 4))
    step = tuple(draw(message_logs(m, workers)) for m in range(messages))
    ready = tuple(draw(st.lists(st.integers(0, layers - 1), min_size=messages, max_size=messages)))
    point = draw(st.tuples(st.floats(1e1, 1e6), seconds, seconds))
    return workload, step, ready, point, draw(st.sampled_from([0.0, 1.0, 2.5])), draw(st.booleans())


@st.composite
def message_logs(draw, message, workers):
    scheme = st.sampled_from(sorted(PASSES))
    works = st.builds(Work, scheme, st.sampled_from([(5,), (30, 10)]), st.integers(1, 3))
    collectives = []
    for r in range(draw(st.integers(0, 3))):
        for _ in range(draw(st.integers(1, 2))):
            operation = draw(st.sampled_from(["all-reduce", "all-gather", "all-gather", "broadcast", "permute"]))
            sizes = draw(st.lists(st.integers(0, 300), min_size=workers, max_size=workers))
            peers = ()
            if operation == "all-reduce":
                sizes = sizes[:1] * workers
            elif operation == "broadcast":
                peers, sizes = (workers - 1,), [0] * (workers - 1) + sizes[:1]
            elif operation == "permute":
                peers = tuple((i + 1) % workers for i in range(workers))
            collectives.append(Collective(operation, r, "bytes", tuple(sizes), peers))
    return MessageLog(message, tuple(draw(st.lists(works, max_size=2))), tuple(collectives))


def collective_s(collective, point):
    """The textbook formulas."""
    bandwidth, latency, launch = point
    sent, workers = collective.sent_bytes, len(collective.sent_bytes)
    if workers == 1 or max(sent) == 0:
        return 0.0
    rounds, size = {
        "all-reduce": (2 * (workers - 1), ceil(max(sent) / workers)),
        "all-gather": (workers - 1, max(sent)),
        "broadcast": (ceil(log2(workers)), max(sent)),
        "permute": (1, max(sent)),
    }[collective.operation]
    return launch + rounds * (latency + 8 * size / bandwidth)


def work_s(log, phase):
    """Kernels of 1 ms and 1 ns a value and pass; a gathered codec's payloads are decoded for each worker."""
    total = 0.0
    for work in log.work:
        passes = PASSES[work.scheme][("encode", "between", "decode").index(phase)]
        once = work.units * (1e-3 + passes * prod(work.shape) * 1e-9) if passes else 0.0
        gathers = work.scheme == "gathered"
        total += once * (len(log.collectives[0].sent_bytes) if phase == "decode" and gathers else 1)
    return total


def longest_path(workload, step, ready, point, factor, overlap):
    """A step's duration and phases: each node of its graph starts when all it depends on has ended."""
    backward = [layer.backward_s for layer in reversed(workload.layers)]
    sending = [m for m in step if m.rounds]
    compute, network = [("forward", sum(layer.forward_s for layer in workload.layers))], []
    waits = {}  # from a node to one on the other resource that it follows
    done = 0
    for m in step:
        due = max(done, ready[m.message] + 1) if overlap else len(backward)
        compute += [(f"backward {i}", backward[i]) for i in range(done, due)]
        done = due
        if m in sending:
            compute.append((f"encode {m.message}", factor * work_s(m, "encode")))
    compute += [(f"backward {i}", backward[i]) for i in range(done, len(backward))]
    for r in range(1, 5):
        for m in sending:
            if r <= m.rounds:
                kind = "between" if r < m.rounds else "decode"
                compute.append((f"{kind} {m.message} {r}", factor * work_s(m, kind)))
                waits[compute[-1][0]] = f"exchange {m.message} {r - 1}"
    compute.append(("optimizer", workload.optimizer_s))
    for r in range(4):
        for m in sending:
            if r < m.rounds:
                own = sum(collective_s(c, point) for c in m.collectives if c.round == r)
                network.append((f"exchange {m.message} {r}", own))
                waits[network[-1][0]] = f"encode {m.message}" if r == 0 else f"between {m.message} {r}"
    seconds = dict(compute + network)
    before = {b[0]: a[0] for order in (compute, network) for a, b in itertools.pairwise(order)}

    @cache
    def end(node):
        return max(end(other) if other else 0.0 for other in (before.get(node), waits.get(node))) + seconds[node]

    kinds = ("forward", "backward", "encode", "between", "decode", "optimizer", "exchange")
    phases = {kind: sum(s for name, s in compute + network if name.startswith(kind)) for kind in kinds}
    return end("optimizer"), phases


@settings(deadline=None, max_examples=150)
@given(runs())
def test_any_step_takes_its_longest_path(run):
    workload, step, ready, point, factor, overlap = run
    made = play([step], ready, workload, point, Overhead(factor=factor), overlap=overlap)
    step_s, phases = longest_path(*run)

    def close(seconds):
        return pytest.approx([seconds], rel=1e-9, abs=1e-9 * step_s)

    assert made.step_s == close(step_s)
    assert made.forward_s == close(phases["forward"])
    assert made.backward_s == close(phases["backward"])
    assert made.encode_s == close(phases["encode"])
    assert made.decode_s == close(phases["between"] + phases["decode"])
    assert made.communication_s == close(phases["exchange"])
    busy = sum(phases.values()) - phases["exchange"]
    assert made.exposed_communication_s == close(step_s - busy)
    assert made.exposed_communication_s[0] >= 0
    assert sum(getattr(made, phase) for phase in PHASES) == close(step_s)


@settings(deadline=None, max_examples=100)
@given(runs())
def test_both_engines_agree_on_every_phase(run):
    workload, step, ready, point, factor, overlap = run
    closed, events = (
        play([step], ready, workload, point, Overhead(factor=factor), overlap=overlap, engine=engine)
        for engine in ("closed-form", "events")
    )
    for phase in (*PHASES, "step_s", "communication_s", "end_s"):
        tolerance = 1e-9 * closed.step_s[0]
        assert getattr(events, phase) == pytest.approx(getattr(closed, phase), rel=1e-9, abs=tolerance), phase


@settings(deadline=None, max_examples=60)
@given(runs(), st.integers(0, 3))
def test_a_step_is_monotone_and_continuous_in_every_rate_and_cost(run, axis):
    """No faster network and no cheaper compression ever lengthens it, and nothing jumps."""
    workload, step, ready, point, _, overlap = run
    options = StepOptions(overlap=overlap)
    plan = plan_steps([step], ready, workload, Overhead(), DEVICE, make_cluster(*SLOW), options, parse=parse)
    fine = np.linspace(0, 1, 400)
    points = [*map(np.float64, point), np.float64(1)]
    points[axis] = point[0] / (1 + 9 * fine) if axis == 0 else 2 * fine
    times = plan.run_s(*points)
    steps = np.diff(times)
    assert np.all(steps >= -1e-12 * times[1:])
    # a max-plus function of costs that grow linearly is convex: its slope never exceeds the last one
    assert np.all(steps <= steps[-1] + 1e-9 * times[-1])


# -------------------------------------------------------------------------------------------------- many steps, points


def test_steps_keep_their_order_whatever_they_share():
    quick = (MessageLog(0, (), ()),)
    steps = [TWO_GATHERS, quick, (gathered(0, (4, 9)), gathered(1, (4, 4))), TWO_GATHERS, quick]
    run = play(steps, (0, 1), TWO_LAYERS, SLOW, GIVEN)
    alone = [play([step], (0, 1), TWO_LAYERS, SLOW, GIVEN) for step in steps]
    assert len(run.plan.graphs) == 2
    for name in ("step_s", "sent_bytes", *PHASES):
        assert getattr(run, name).tolist() == [getattr(one, name)[0] for one in alone]
    assert run.end_s == pytest.approx(np.cumsum(run.step_s))
    assert run.sent_bytes.tolist() == [8, 0, 6.5 + 4, 8, 0]
    names = [span.name for span in run.spans(2)]
    assert names == [span.name for span in run.spans(3)]
    longer, shorter = ({s.name: s.end_s - s.start_s for s in run.spans(i)}["exchange 0"] for i in (2, 3))
    assert (longer, shorter) == pytest.approx((9.75, 4.75))


def test_a_run_is_retimed_at_many_points_at_once():
    steps = [TWO_GATHERS, (gathered(0, (4, 9)), gathered(1, (4, 4))), (gathered(0, (1, 2)),), TWO_GATHERS]
    plan = plan_steps(steps, (0, 1), TWO_LAYERS, GIVEN, DEVICE, make_cluster(*SLOW), parse=parse)
    bandwidth, factor = np.array([4.0, 8.0, 80.0])[:, None], np.array([0.0, 1.0])
    totals = plan.run_s(bandwidth, 0.5, 0.25, factor)
    assert totals.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        overhead = GIVEN.model_copy(update={"factor": factor[j]})
        alone = play(steps, (0, 1), TWO_LAYERS, (bandwidth[i, 0], 0.5, 0.25), overhead)
        assert totals[i, j] == pytest.approx(alone.end_s[-1], rel=1e-12)
    nothing_sent = plan_steps([()], (), TWO_LAYERS, GIVEN, DEVICE, make_cluster(*SLOW), parse=parse)
    assert nothing_sent.run_s(bandwidth, 0.5, 0.25, factor).tolist() == [[8.0, 8.0]] * 3


def test_the_time_that_has_elapsed_at_any_step_is_that_of_the_timeline():
    """Sums over the first steps, phase by phase, at every point."""
    steps = [TWO_GATHERS, (gathered(0, (4, 9)), gathered(1, (4, 4))), (gathered(0, (1, 2)),), TWO_GATHERS]
    plan = plan_steps(steps, (0, 1), TWO_LAYERS, GIVEN, DEVICE, make_cluster(*SLOW), parse=parse)
    ends = [0, 1, 3, 4, 2]
    bandwidth, factor = np.array([4.0, 80.0])[:, None], np.array([0.0, 1.0, 2.5])
    found = plan.elapsed(ends, bandwidth, 0.5, 0.25, factor)
    for i, j in np.ndindex(2, 3):
        overhead = GIVEN.model_copy(update={"factor": factor[j]})
        alone = play(steps, (0, 1), TWO_LAYERS, (bandwidth[i, 0], 0.5, 0.25), overhead)
        for name in ("step_s", "communication_s", *PHASES):
            sums = [float(getattr(alone, name)[:end].sum()) for end in ends]
            assert getattr(found, name)[i, j].tolist() == pytest.approx(sums, rel=1e-12), name
    assert plan.sent_bytes().tolist() == [8, 6.5 + 4, 1.5, 8]


PORTS = {"bandwidth": "100 GB/s", "latency": "1 us"}
NUMBERS = {"bandwidth": "1 Gbit/s", "latency": "1 us", "launch": "1 us"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fabric": {"kind": "switch", "core": "10 Gbit/s"}}, "cluster.fabric has bandwidths of its own"),
        ({"fabric": {"kind": "leaf-spine", "hosts_per_leaf": 1, "spines": 1, "uplink": "1 Gbit/s"}}, "cluster.fabric"),
        ({"pieces": [{"from": "0 B"}, {"from": "1 kB", "latency": "9 us"}]}, "cluster.pieces"),
        ({"gpus": 2, "intra": PORTS}, "cluster.gpus = 2 on 2 hosts; allowed: 1, or one host"),
    ],
    ids=["core", "uplink", "pieces", "ports"],
)
def test_many_points_need_a_cluster_of_three_numbers(more, words):
    workers = 2 * more.get("gpus", 1)
    step = (MessageLog(0, (), (Collective("all-reduce", 0, "float32", (2**20,) * workers),)),)
    plan = plan_steps([step], (1,), TWO_LAYERS, GIVEN, DEVICE, make(**NUMBERS, **more), parse=parse)
    assert plan.priced is not None
    with pytest.raises(InputError, match=words) as caught:
        plan.run_s([1e9, 1e12], 0.0, 0.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (([1e9, 0.0], 0.0, 0.0), "bandwidth_bps = 0; allowed: above 0"),
        ((1e9, -1.0, 0.0), "latency_s = -1; allowed: finite numbers of 0 or more"),
        ((1e9, 0.0, math.nan), "launch_s = nan; allowed"),
        ((1e9, 0.0, 0.0, -1.0), "factor = -1; allowed"),
    ],
)
def test_points_that_no_cluster_has_are_refused(point, line):
    plan = plan_steps([TWO_GATHERS], (0, 1), TWO_LAYERS, GIVEN, DEVICE, make_cluster(*SLOW), parse=parse)
    with pytest.raises(InputError, match=line):
        plan.run_s(*point)


def test_many_points_within_one_host():
    step = (MessageLog(0, (), (Collective("all-reduce", 0, "float32", (2**20, 2**20)),)),)
    cluster = make(**NUMBERS, gpus=2, intra=PORTS)
    plan = plan_steps([step], (1,), TWO_LAYERS, GIVEN, DEVICE, cluster, parse=parse)
    assert np.diff(plan.run_s([1e3, 1e12], 0.0, 1.0)) == 0


def test_a_run_of_no_steps_has_an_empty_timeline():
    run = play([], (), TWO_LAYERS, SLOW)
    assert run.step_s.shape == run.end_s.shape == (0,)


def test_a_log_must_fit_the_workload():
    with pytest.raises(ValueError, match="a message 1, but ready tells of 1 messages only"):
        play([TWO_GATHERS], (0,), TWO_LAYERS, SLOW)
    with pytest.raises(ValueError, match="must be positions in the workload's 2 layers"):
        play([TWO_GATHERS], (0, 2), TWO_LAYERS, SLOW)
