"""Where operators are at the edge of the classes of Beznosikov et al. 2020, and one that is outside."""

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import beznosikov_classes
from gradwire.compressors.sparsifiers.topk import TopK

from .faultyschemes import StingyTopK

CHECKS = {check.statement.name: check for check in beznosikov_classes.OPERATOR_CHECKS}


def on_standard(name: str, scheme: TopK) -> Finding:
    return CHECKS[name].examine(Probe(scheme, standard_vectors(20)))


SHARP = {name: lambda name=name: on_standard(name, TopK(0.2)) for name in CHECKS}
BROKEN = {name: lambda name=name: on_standard(name, StingyTopK(0.2)) for name in CHECKS}
