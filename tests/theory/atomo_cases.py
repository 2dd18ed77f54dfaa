"""Where the statements of Wang et al. 2018 are sharp, and what breaks them."""

import numpy as np

from gradwire.analysis.theory.check import Floats
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import atomo2018
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.quantizers.terngrad import TernGrad
from gradwire.compressors.sparsifiers.wangni import Wangni

from .faultyschemes import ClippedWangni, StingyAtomo, WrongWayQSGD, clipped_and_filled

VECTORS = {"by hand": np.array([10.0, 1, 1, 1]), "geometric": standard_vectors(4)["geometric"]}
LONG = {name: standard_vectors(30)[name] for name in ("normal", "unbalanced", "geometric")}


def indifferent(size: int = 6) -> Floats:
    """Return a I + b 11^T for which the two bases are equally good: sqrt(2 n) times the nuclear norm is the sum.

    The singular values are a + n b, and a for all others; the sum of the entries is n a + n^2 b.
    """
    root = np.sqrt(2 * size)
    b = (root - 1) / (size - root)
    return np.eye(size) + b * np.ones((size, size))


SHARP = {
    "atomo.inclusion": lambda: atomo2018.inclusion(Probe(Wangni(0.5), VECTORS, 400)),
    "atomo.second_moment": lambda: atomo2018.second_moment(Probe(Wangni(0.3), LONG, 400)),
    "atomo.optimal": lambda: atomo2018.optimal(Probe(Wangni(0.3), LONG)),
    "atomo.one_level": lambda: atomo2018.one_level(Probe(TernGrad(clip=0), LONG, 400)),
    "atomo.spectral": lambda: atomo2018.spectral(Probe(Atomo(1.5), {"indifferent": indifferent()}, 400)),
}
BROKEN = {
    "atomo.inclusion": lambda: atomo2018.inclusion(Probe(ClippedWangni(0.5), VECTORS, 400)),
    "atomo.second_moment": lambda: atomo2018.second_moment(Probe(ClippedWangni(0.3), LONG, 400)),
    "atomo.optimal": lambda: atomo2018.optimal(Probe(Wangni(0.3), LONG), clipped_and_filled),
    "atomo.one_level": lambda: atomo2018.one_level(Probe(WrongWayQSGD(bits=2), LONG, 400)),
    "atomo.spectral": lambda: atomo2018.spectral(Probe(StingyAtomo(1.5), {"indifferent": indifferent()}, 400)),
}
ONE_LEVEL_QUANTIZERS = (TernGrad(clip=0), QSGD(2), QSGD(2, norm="l2"))
