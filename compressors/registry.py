"""The one list of schemes and memories. To add one, write its file and its line here."""

from .base import Memory, Scheme
from .feedback import ErrorFeedback
from .lowrank.atomo import Atomo
from .lowrank.powersgd import PowerSGD
from .onebitadam import OneBitAdamScheme
from .quantizers.dense import Dense
from .quantizers.qsgd import QSGD
from .sparsifiers.cltk import CLTK
from .sparsifiers.gtopk import GTopK
from .sparsifiers.oktopk import OkTopK
from .sparsifiers.randomblock import RandomBlock
from .sparsifiers.randomk import RandomK
from .sparsifiers.topk import TopK
from .twosided import TwoSided

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Dense,
        TopK,
        RandomK,
        RandomBlock,
        CLTK,
        GTopK,
        OkTopK,
        QSGD,
        OneBitAdamScheme,
        PowerSGD,
        Atomo,
    )
}

MEMORIES: dict[str, type[Memory]] = {
    memory.name: memory
    for memory in (
        ErrorFeedback,
        TwoSided,
    )
}  # fmt: skip
