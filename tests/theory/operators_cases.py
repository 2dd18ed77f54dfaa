"""Where the statements about every scheme's operator are sharp, and what breaks them."""

from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import operators
from gradwire.compressors.base import Scheme
from gradwire.compressors.quantizers.natural import Natural
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.sparsifiers.randomblock import RandomBlock

from .faultyschemes import UnwrappedBlock, WrongWayNatural, WrongWayQSGD

VECTORS = standard_vectors(20)


def probe(scheme: Scheme, *names: str) -> Probe:
    return Probe(scheme, {name: VECTORS[name] for name in names or VECTORS}, draws=400)


SHARP = {
    "operator.contraction": lambda: operators.contraction(probe(RandomBlock(0.25))),
    "operator.variance": lambda: operators.variance(probe(Natural(), "four thirds", "normal")),
    "operator.unbiased": lambda: operators.unbiased(probe(QSGD(2, norm="l2"), "normal", "unbalanced")),
    "operator.equality": lambda: operators.equality(probe(RandomBlock(0.25))),
}
BROKEN = {
    "operator.contraction": lambda: operators.contraction(probe(UnwrappedBlock(0.25))),
    "operator.variance": lambda: operators.variance(probe(WrongWayNatural(), "four thirds", "normal")),
    "operator.unbiased": lambda: operators.unbiased(probe(WrongWayQSGD(2, norm="l2"), "normal", "unbalanced")),
    "operator.equality": lambda: operators.equality(probe(UnwrappedBlock(0.25))),
}
