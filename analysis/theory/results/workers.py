"""What workers have in common: their draws and their objectives, which decide what averaging over them gains."""

from ....compressors.base import Codec, Scheme
from ....compressors.quantizers.dense import Dense
from ..evidence import Constant, Evidence


def own_smoothness(evidence: Evidence) -> Constant | None:
    """Return the root of the mean of L_i^2: L itself where all workers have the same objective."""
    facts = evidence.facts
    return facts.smoothness if facts.identical else facts.own_smoothness


def heterogeneity(evidence: Evidence) -> Constant | None:
    """Return zeta^2: zero where all workers have the same objective."""
    return Constant(0.0, "exact") if evidence.facts.identical else evidence.facts.heterogeneity


def drawn_apart(scheme: Scheme) -> bool:
    """Return whether every worker draws for itself, at all stages of a schedule; where payloads are summed, none does.

    Protocols of several rounds count as drawing together.
    """
    parts = [part for stage in scheme.ever() for part in stage.parts() if not isinstance(part, Dense)]
    return all(isinstance(part, Codec) and part.combine == "gather" for part in parts)


def variance_share(evidence: Evidence) -> float:
    """Return w, with E||mean of C(x_i) - mean of x_i||^2 <= w * mean of ||x_i||^2 for an unbiased C.

    It is omega / N where every worker draws for itself, else omega, by convexity.
    """
    omega = evidence.error
    return omega / evidence.workers if drawn_apart(evidence.inner) else omega
