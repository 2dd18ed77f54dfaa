"""Options of a step, by hand: streams, a codec stream, padding, the first bucket, networks that change."""

import numpy as np
import pytest

from gradwire.compressors.errors import InputError
from gradwire.sim.cluster.cluster import make_cluster as cluster_of
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline

from .toysteps import DEVICE, GIVEN, SLOW, TWO_LAYERS, gathered, parse, play

TWO_GATHERS = (gathered(0, (4, 4)), gathered(1, (4, 4)))
"""Each takes 0.25 + 0.5 + 4 s alone; encoding 0.5 s, decoding its two payloads 0.5 s."""
BOTH = pytest.mark.parametrize("engine", ["closed-form", "events"])


@BOTH
def test_a_codec_stream_leaves_the_compute_resource_free(engine):
    """Forward 0-2, backward 2-4-7; encode 4-4.5 and 7-7.5; gathers 4.5-9.25-14; decode 9.25-9.75 and 14-14.5."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, codec="stream")
    assert run.step_s == pytest.approx([15.5], rel=1e-12)
    assert (run.encode_s, run.decode_s) == ([0.0], [0.0])
    assert run.exposed_communication_s == pytest.approx([14.5 - 7], rel=1e-12)
    spans = [(s.name, s.start_s, s.end_s) for s in run.spans(0) if s.worker == 0 and s.resource == "codec"]
    assert spans == [("encode 0", 4, 4.5), ("encode 1", 7, 7.5), ("decode 0", 9.25, 9.75), ("decode 1", 14, 14.5)]


@BOTH
def test_what_runs_beside_the_model_is_slowed_down(engine):
    """Encode 4-5 and 7-8, gathers 5-9.75-14.5, decode 9.75-10.75 and 14.5-15.5."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, codec="stream", slowdown=2.0)
    assert run.step_s == pytest.approx([16.5], rel=1e-12)


@BOTH
def test_the_slowdown_is_of_the_codec_stream_only(engine):
    one, two = (play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, slowdown=s) for s in (1.0, 3.0))
    assert one.step_s == two.step_s


@BOTH
def test_a_blocked_worker_waits_for_each_exchange(engine):
    """Forward 0-2, backward -7; encode 7-7.5, gather -12.25, decode -12.75; encode -13.25, gather -18, decode -18.5."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, overlap=False, blocking=True)
    assert run.step_s == pytest.approx([19.5], rel=1e-12)
    assert run.exposed_communication_s == run.communication_s == pytest.approx([9.5], rel=1e-12)


@BOTH
def test_a_blocked_worker_goes_on_with_the_backward_pass_after_each_message(engine):
    """Backward 2-4, encode -4.5, gather -9.25, decode -9.75; backward -12.75, encode -13.25, gather -18."""
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, blocking=True)
    spans = [(s.name, s.start_s, s.end_s) for s in run.spans(0) if s.worker == 0 and s.resource == "network"]
    assert spans == [("exchange 0", 4.5, 9.25), ("exchange 1", 13.25, 18)]
    assert run.step_s == pytest.approx([19.5], rel=1e-12)


def test_two_streams_share_the_links():
    """The second gather starts at 8 instead of 9.25, and both share the links from 8.75 on, where 0.5 B of the first
    are left: those end at 9.75, the second's 4 B at 13.25.
    """
    run = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, streams=2)
    assert run.engine == "events"
    assert run.why == "2 communication streams share the links"
    ends = sorted(s.end_s for s in run.spans(0) if s.worker == 0 and s.resource == "network")
    assert ends == pytest.approx([9.75, 13.25], rel=1e-12)
    assert run.step_s == pytest.approx([13.25 + 0.5 + 1], rel=1e-12)


def test_a_closed_form_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"timing\.engine = 'closed-form': there is none, for 2 communication streams"):
        play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, streams=2, engine="closed-form")


@BOTH
def test_gathers_are_padded_to_the_largest_or_exact(engine):
    """The largest block goes once around the ring either way: padding adds bytes, and no time on equal links."""
    step = (gathered(0, (1, 1, 6, 1)),)
    for gathers, sent in (("padded", [6, 6, 6, 6]), ("exact", [1, 1, 6, 1])):
        run = play([step], (0,), TWO_LAYERS, SLOW, GIVEN, engine=engine, gathers=gathers)
        assert run.communication_s == pytest.approx([0.25 + 3 * (0.5 + 6)], rel=1e-12)
        assert run.plan.costs[0].sent("all-gather", np.array(step[0].collectives[0].sent_bytes)).tolist() == sent


@BOTH
def test_the_first_step_may_send_one_bucket(engine):
    """Both gathers in one, once the backward pass is over: 7, encode -8, gather 8.75 + 8, decode, optimizer."""
    run = play([TWO_GATHERS] * 2, (0, 1), TWO_LAYERS, SLOW, GIVEN, engine=engine, one_bucket_first=True)
    assert run.step_s == pytest.approx([8 + 8.75 + 1 + 1, 15.5], rel=1e-12)


# --------------------------------------------------------------------------------------- clusters that are not plain


def on(keys, steps=1, **options):
    """Play the two gathers on a cluster that is SLOW but for some keys."""
    cluster = cluster_of({"bandwidth": "8 bit/s", "latency": "500 ms", "launch": "250 ms"} | keys)
    logs, options = [TWO_GATHERS] * steps, StepOptions(**options)
    return timeline(logs, (0, 1), TWO_LAYERS, cluster, GIVEN, DEVICE, options, parse=parse)


def test_the_closed_form_is_used_wherever_it_is_exact_and_the_events_elsewhere():
    plain, unequal = on({}), on({"host": [{"which": 1, "bandwidth": "16 bit/s"}]})
    assert (plain.engine, plain.why) == ("closed-form", "hosts and links are equal, and nothing contends")
    assert (unequal.engine, unequal.why) == ("events", "hosts differ in bandwidth")
    assert on({}, engine="events").why == "asked for"


def test_a_slow_host_sets_the_pace():
    """Its uplink and its downlink are each crossed by a block of 4 B, at half the rate."""
    run = on({"host": [{"which": 1, "bandwidth": "4 bit/s"}]})
    assert run.communication_s == pytest.approx([2 * (0.25 + 0.5 + 8)], rel=1e-12)


def test_background_takes_its_share_of_the_links():
    """Somebody sends from host 0 to host 1 all the time: half of that way is left, and that block takes 8 s."""
    run = on({"background": [{"from": "host0", "to": "host1"}]})
    assert run.communication_s == pytest.approx([2 * (0.25 + 0.5 + 8)], rel=1e-12)
    assert run.engine == "events"


def test_bandwidth_that_changes_in_the_course_of_a_run():
    """The network is at half its rate until 40 s: slow gathers, some on the way faster, then all as usual."""
    run = on({"profile": [{"link": "nics", "times": ["0 s", "40 s"], "factors": [0.5, 1.0]}]}, steps=5)
    slow, fast = on({"bandwidth": "4 bit/s"}).step_s[0], on({}).step_s[0]
    assert run.step_s[0] == pytest.approx(slow, rel=1e-12)
    assert fast < run.step_s[1] < slow
    assert run.step_s[2:] == pytest.approx([fast] * 3, rel=1e-12)


def test_pieces_by_size_in_both_engines():
    pieces = [{"from": "0 B", "launch": "1 s"}, {"from": "4 B", "launch": "2 s", "latency": "3 s", "efficiency": 0.5}]
    closed, events = (on({"pieces": pieces}, engine=engine) for engine in ("closed-form", "events"))
    assert closed.communication_s == pytest.approx([2 * (2 + 3 + 8)], rel=1e-12)
    assert events.step_s == pytest.approx(closed.step_s, rel=1e-12)


def test_more_workers_than_gpus_are_refused():
    with pytest.raises(InputError, match="workers = 2: the cluster has 1 GPUs"):
        on({"hosts": 1})


def test_overheads_scale_on_both_resources():
    run, double = (
        play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN.model_copy(update={"factor": f}), codec="stream")
        for f in (1.0, 2.0)
    )
    slowed = play([TWO_GATHERS], (0, 1), TWO_LAYERS, SLOW, GIVEN, codec="stream", slowdown=2.0)
    assert double.step_s == slowed.step_s
    assert run.step_s < double.step_s
    assert play([()], (), TWO_LAYERS, SLOW, Overhead(), codec="stream").step_s == pytest.approx([8.0])
