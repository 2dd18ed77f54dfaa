"""Traces: what a viewer needs to show runs side by side."""

import itertools
import json

import pytest

from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster import load_cluster
from gradwire.sim.step.device import load_device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline
from gradwire.sim.step.trace import chrome_trace
from gradwire.sim.step.workload import Layer, Workload

WORKLOAD = Workload((Layer("all", ("all",), 1000, 1e-3, 2e-3),), 5e-4, "given")


def make_run(scheme, operation, engine="closed-form"):
    exchange = Collective(operation, 0, "bytes", (4000, 4000))
    steps = [(MessageLog(0, (Work(scheme, (1000,), 1),), (exchange,)),)] * 5
    cluster = load_cluster("ethernet-10g")
    return timeline(steps, (0,), WORKLOAD, cluster, Overhead(), load_device("v100"), StepOptions(engine=engine))


def test_a_trace_shows_the_first_steps_of_each_run():
    runs = {"dense": make_run("dense", "all-reduce"), "ef(topk)": make_run("ef(topk)", "all-gather")}
    trace = json.loads(json.dumps(chrome_trace(runs, steps=2)))
    events = trace["traceEvents"]
    named = {(e["pid"], e["tid"], e["name"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert named == {
        (0, 0, "process_name"): "dense",
        (0, 0, "thread_name"): "worker 0 compute",
        (0, 1, "thread_name"): "worker 0 network",
        (1, 0, "process_name"): "ef(topk)",
        (1, 0, "thread_name"): "worker 0 compute",
        (1, 1, "thread_name"): "worker 0 network",
    }
    dense = [e for e in events if e["ph"] == "X" and e["pid"] == 0]
    assert [(e["name"], e["tid"], e["args"]["step"]) for e in dense if e["args"]["step"] == 1] == [
        ("forward", 0, 1),
        ("backward 0", 0, 1),
        ("exchange 0", 1, 1),
        ("optimizer", 0, 1),
    ]
    assert {e["args"]["step"] for e in dense} == {0, 1}
    assert {"encode 0", "decode 0"} <= {e["name"] for e in events if e["pid"] == 1}


def test_a_trace_counts_microseconds_of_virtual_time():
    run = make_run("dense", "all-reduce")
    complete = [e for e in chrome_trace({"dense": run}, steps=9)["traceEvents"] if e["ph"] == "X"]
    first = complete[0]
    assert (first["name"], first["ts"], first["dur"]) == ("forward", 0, pytest.approx(1000))
    assert max(e["ts"] + e["dur"] for e in complete) == pytest.approx(run.end_s[-1] * 1e6)
    for thread in (0, 1):
        own = [e for e in complete if e["tid"] == thread]
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in itertools.pairwise(own))


def test_the_event_engine_shows_every_worker():
    trace = chrome_trace({"dense": make_run("dense", "all-reduce", "events")}, steps=1)
    threads = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert threads == {f"worker {worker} {resource}" for worker in (0, 1) for resource in ("compute", "network")}
