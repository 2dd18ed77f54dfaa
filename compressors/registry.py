"""The one list of schemes and memories. To add one, write its file and its line here."""

from .base import Memory, Scheme
from .feedback import ErrorFeedback
from .lowrank.powersgd import PowerSGD
from .quantizers.dense import Dense
from .quantizers.int8 import Int8
from .quantizers.mx import MX
from .quantizers.natural import Natural
from .quantizers.nuqsgd import NUQSGD
from .quantizers.qsgd import QSGD
from .quantizers.sharedqsgd import SharedQSGD
from .quantizers.signs import OneBit, ScaledSign, SignSGD, Signum
from .quantizers.terngrad import SharedTernGrad, TernGrad
from .sparsifiers.randomblock import RandomBlock
from .sparsifiers.randomk import RandomK
from .sparsifiers.topk import TopK

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Dense,
        TopK,
        RandomK,
        RandomBlock,
        QSGD,
        SharedQSGD,
        NUQSGD,
        Natural,
        TernGrad,
        SharedTernGrad,
        Int8,
        MX,
        OneBit,
        ScaledSign,
        SignSGD,
        Signum,
        PowerSGD,
    )
}

MEMORIES: dict[str, type[Memory]] = {
    memory.name: memory
    for memory in (
        ErrorFeedback,
    )
}  # fmt: skip
