"""Where the statements of Khirirat et al. 2020 about the choice are sharp, and what breaks them."""

import numpy as np
import torch
from torch import Tensor

from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import khirirat2020_tuning as tuning
from gradwire.compressors.adaptive import CAT

from .faultyschemes import GenerousCAT, GreedyCAT, UnscaledCAT

VECTORS = {name: standard_vectors(150)[name] for name in ("flat", "geometric", "normal", "heavy tail")}
LATE = {"rises late": np.concatenate([[10.0], np.ones(400)])}
"""beta falls after the first entry and rises later above where it was."""
SLOW = {"operator": "sq", "cost": "affine", "fixed": 1e9}


def first(x: Tensor, count: int) -> Tensor:
    """Select the first entries, which need not be the largest."""
    return torch.arange(count)[None].expand(len(x), count)


SHARP = {
    "cat.one_entry": lambda: tuning.one_entry(Probe(CAT(cost="payload"), VECTORS)),
    "cat.packets": lambda: tuning.packets(Probe(CAT(packet=90), VECTORS)),
    "cat.best": lambda: tuning.best(Probe(CAT(**SLOW), LATE)),
    "cat.kept": lambda: tuning.kept(Probe(CAT(operator="sq"), VECTORS)),
    "cat.concave": lambda: tuning.concave(Probe(CAT(), VECTORS)),
}
BROKEN = {
    "cat.one_entry": lambda: tuning.one_entry(Probe(GenerousCAT(cost="payload"), VECTORS)),
    "cat.packets": lambda: tuning.packets(Probe(GenerousCAT(packet=90), VECTORS)),
    "cat.best": lambda: tuning.best(Probe(GreedyCAT(**SLOW), LATE)),
    "cat.kept": lambda: tuning.kept(Probe(UnscaledCAT(operator="sq"), VECTORS)),
    "cat.concave": lambda: tuning.concave(Probe(CAT(), VECTORS), first),
}
