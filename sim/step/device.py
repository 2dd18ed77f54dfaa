"""Devices: how fast a worker computes and moves memory, as presets with sources or as given by the user."""

import tomllib
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from ..cluster.cluster import unknown_name
from ..network.tuning import Generation
from ..units import ByteRate, Duration, FlopRate


class DeviceSources(BaseModel):
    """Where each of a device's numbers comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    peak: str = "given"
    efficiency: str = "given"
    memory: str = "given"
    kernel_launch: str = "given"


class Device(BaseModel):
    """What a worker computes on.

    Attributes
    ----------
    name : str
    peak : float, FLOP/s
        The vendor's figure for the arithmetic that training uses.
    efficiency : float, in (0, 1]
        The fraction of the peak that a layer's arithmetic reaches.
    memory : float, bytes/s
        The bandwidth of its memory.
    kernel_launch : float, s
        What each kernel costs besides its arithmetic and its memory traffic.
    generation : {"volta", "ampere", "hopper"}
        What NCCL's choice of an algorithm takes it for.
    source : DeviceSources
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    peak: FlopRate
    efficiency: float = Field(gt=0, le=1)
    memory: ByteRate
    kernel_launch: Duration
    generation: Generation = "ampere"
    source: DeviceSources = DeviceSources()

    def compute_s(self, flops: float, memory_bytes: float, kernels: float) -> float:
        """Return the time of some work by the roofline: its arithmetic or its memory traffic, whichever is slower.

        References
        ----------
        .. [1] Williams, Waterman, Patterson. *Roofline: An Insightful Visual Performance Model for Multicore
           Architectures*, CACM 2009, https://doi.org/10.1145/1498765.1498785
        """
        return max(flops / (self.peak * self.efficiency), memory_bytes / self.memory) + kernels * self.kernel_launch


def _read_presets() -> dict[str, Device]:
    text = (files("gradwire.sim.step") / "presets" / "devices.toml").read_text(encoding="utf-8")
    return {name: Device(name=name, **values) for name, values in tomllib.loads(text).items()}


DEVICES: dict[str, Device] = _read_presets()
"""The presets by name."""


def load_device(name: str) -> Device:
    """Return a preset; raises ``ValueError`` with the nearest names if there is none of this name."""
    if name not in DEVICES:
        raise unknown_name("device", name, tuple(DEVICES))
    return DEVICES[name]
