"""What the tests of steps share: a device, schemes and clusters with round numbers, and how to play steps on them."""

from dataclasses import dataclass

from gradwire.compressors.base import Codec, Passes, Protocol
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster import Cluster
from gradwire.sim.step.device import Device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline
from gradwire.sim.step.workload import Layer, Workload
from gradwire.sim.units import format_bandwidth, format_duration

DEVICE = Device(name="toy", peak="1 TFLOP/s", efficiency=1, memory="4 GB/s", kernel_launch="1 ms")
"""A kernel takes 1 ms and a nanosecond for each float32 value it touches."""
PASSES = {"gathered": (2, 0, 3), "summed": (3, 0, 1), "rounds": (1, 4, 2), "dense": (0, 0, 0)}
PHASES = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s", "exposed_communication_s")


@dataclass(frozen=True)
class FakeCodec(Codec):
    name: str
    init = error_bound = wire_bytes = encode = decode = unbiased = None

    @property
    def combine(self):
        return "gather" if self.name == "gathered" else "sum"

    def passes(self, shape):
        return Passes(*PASSES[self.name])


@dataclass(frozen=True)
class FakeProtocol(Protocol):
    name: str
    init = error_bound = wire_bytes = rounds = unbiased = None

    def passes(self, shape):
        return Passes(*PASSES[self.name])


def parse(name):
    return FakeProtocol(name) if name == "rounds" else FakeCodec(name)


def make_cluster(bandwidth, latency, launch):
    return Cluster(
        bandwidth=format_bandwidth(bandwidth), latency=format_duration(latency), launch=format_duration(launch)
    )


def play(steps, ready, workload, point, overhead=None, **options):
    cluster, overhead, options = make_cluster(*point), overhead or Overhead(), StepOptions(**options)
    return timeline(steps, ready, workload, cluster, overhead, DEVICE, options, parse=parse)


TWO_LAYERS = Workload((Layer("a", ("a",), 1, 1.0, 3.0), Layer("b", ("b",), 1, 1.0, 2.0)), 1.0, "by hand")
SLOW = (8.0, 0.5, 0.25)
"""A byte a second, half a second on the way, a quarter to launch."""
GIVEN = Overhead(encode_fixed="500 ms", decode_fixed="250 ms")


def gathered(message, sent, number=0):
    return MessageLog(message, (Work("gathered", (1,), 1),), (Collective("all-gather", number, "bytes", sent),))
