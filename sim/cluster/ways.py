"""Switches between hosts: one that is never the bottleneck, one with a limited core, and leaves below spines."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .topology import NO_LINK, FloatArray, IntArray


@dataclass(frozen=True)
class SwitchWays:
    """All hosts on one switch.

    Attributes
    ----------
    core_bps : float or None
        What all transfers share inside of the switch; None: it is never the bottleneck.
    """

    core_bps: float | None

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.core_bps is None else ("core",)

    @property
    def capacity_bps(self) -> FloatArray:
        return np.array([] if self.core_bps is None else [self.core_bps], np.float64)

    def between(self, src: IntArray, dst: IntArray) -> tuple[IntArray, FloatArray]:
        return np.zeros((len(src), len(self.names)), np.int64), np.zeros(len(src))


@dataclass(frozen=True)
class LeafSpineWays:
    """Hosts on leaf switches, each of which has one uplink to each spine.

    Attributes
    ----------
    hosts_per_leaf, leaves, spines : int
    uplink_bps : float
        Of each uplink, each way.
    ecmp : {"hash", "spread"}
        Whether all that goes between two hosts, there and back, takes one spine by a fixed hash, so that some uplinks
        are chosen more often than others, or packets go over all spines alike, so that a leaf's uplinks act as one
        link of their summed bandwidth.
    latency_s : float
        What crossing a spine adds.
    """

    hosts_per_leaf: int
    leaves: int
    spines: int
    uplink_bps: float
    ecmp: Literal["hash", "spread"]
    latency_s: float

    @cached_property
    def names(self) -> tuple[str, ...]:
        spines = ["spines"] if self.ecmp == "spread" else [f"spine{s}" for s in range(self.spines)]
        up = [f"leaf{leaf} > {spine}" for leaf in range(self.leaves) for spine in spines]
        return (*up, *(f"{spine} > leaf{leaf}" for leaf in range(self.leaves) for spine in spines))

    @property
    def capacity_bps(self) -> FloatArray:
        bundled = self.spines if self.ecmp == "spread" else 1
        return np.full(len(self.names), bundled * self.uplink_bps)

    def between(self, src: IntArray, dst: IntArray) -> tuple[IntArray, FloatArray]:
        up, down = src // self.hosts_per_leaf, dst // self.hosts_per_leaf
        spines = 1 if self.ecmp == "spread" else self.spines
        spine = _hash(np.minimum(src, dst), np.maximum(src, dst)) % np.uint64(spines)
        chosen = spine.astype(np.int64)
        links = np.stack([up * spines + chosen, (self.leaves + down) * spines + chosen], axis=1)
        links[up == down] = NO_LINK
        return links, np.where(up == down, 0.0, self.latency_s)


def _hash(low: IntArray, high: IntArray) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """Mix two numbers below 2**32 into one: the finaliser of SplitMix64 (Steele et al. 2014)."""
    z = (low.astype(np.uint64) << np.uint64(32)) + high.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
