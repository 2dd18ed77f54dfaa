"""Timelines against what was measured on real clusters, and what they say of compression there."""

from math import inf

import pytest

from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster import load_cluster
from gradwire.sim.step.device import load_device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline
from gradwire.sim.step.validated import find_setup
from gradwire.sim.step.workload import Layer, Workload


@pytest.mark.parametrize(
    ("model", "elements", "alone_ms", "workers", "published_ms"),
    [
        ("resnet50", 25_557_032, 252.86, 8, 399.29),
        ("resnet50", 25_557_032, 252.86, 16, 412.05),
        ("resnet50", 25_557_032, 252.86, 32, 416.19),
        ("bert-large", 336_200_000, 163.27, 8, 2209.94),
        ("bert-large", 336_200_000, 163.27, 16, 2357.27),
        ("bert-large", 336_200_000, 163.27, 32, 2435.78),
    ],
    ids=str,
)
def test_measured_steps_on_10_gigabit_ethernet(model, elements, alone_ms, workers, published_ms):
    """ResNet-50 and BERT-Large, dense all-reduce after the backward pass, 4 GPUs a host, with nothing fitted to them.

    github.com/HKBU-HPML/ddl-benchmarks, results of 2020-05-29 (arXiv 2005.13247): 10GbE TCP, BSP, and a single GPU. A
    ring through all GPUs crosses each host's link once, so its links count as one host a GPU. The error is the one that
    advice states for such set-ups.
    """
    alone_s = alone_ms / 1e3
    workload = Workload((Layer("all", ("all",), elements, alone_s / 3, alone_s * 2 / 3),), 0.0, "one GPU, published")
    dense = Collective("all-reduce", 0, "float32", (4 * elements,) * workers)
    step = (MessageLog(0, (Work("dense", (elements,), 1),), (dense,)),)
    cluster, options = load_cluster("ethernet-10g"), StepOptions(overlap=False)
    run = timeline([step], (0,), workload, cluster, Overhead(), load_device("v100"), options)
    setup = find_setup(model, cluster, workers)
    assert (setup.scheme, setup.overlap, setup.error) == ("dense(dtype=fp32)", options.overlap, 0.03)
    assert 1e3 * run.step_s[0] == pytest.approx(published_ms, rel=setup.error)


def test_compression_pays_on_a_slow_network_and_not_on_a_fast_one():
    """Top-k of a million entries saves 99 % of the bytes and costs a selection."""
    workload = Workload((Layer("all", ("all",), 10**6, 1e-3, 2e-3),), 1e-3, "given")
    sent = {"dense": 4 * 10**6, "topk": 65_000}
    operation = {"dense": "all-reduce", "topk": "all-gather"}
    fastest = {}
    for name in ("ethernet-1g", "infiniband-100g"):
        best = inf
        for scheme, size in sent.items():
            exchange = Collective(operation[scheme], 0, "bytes", (size,) * 8)
            step = (MessageLog(0, (Work(scheme, (10**6,), 1),), (exchange,)),)
            run = timeline([step], (0,), workload, load_cluster(name), Overhead(), load_device("v100"))
            if run.step_s[0] < best:
                best, fastest[name] = run.step_s[0], scheme
    assert fastest == {"ethernet-1g": "topk", "infiniband-100g": "dense"}
