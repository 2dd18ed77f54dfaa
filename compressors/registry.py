"""The one list of schemes, memories and wrappers. To add one, write its file and its line here."""

from .adaptive import CAT
from .base import Memory, Scheme, Wrapper
from .feedback import EF21, ErrorFeedback, LowPass
from .lowrank.powersgd import PowerSGD
from .policy import Layers
from .quantizers.dense import Dense
from .quantizers.qsgd import QSGD
from .schedule import Phases, Warmup
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
        PowerSGD,
        CAT,
    )
}

MEMORIES: dict[str, type[Memory]] = {
    memory.name: memory
    for memory in (
        ErrorFeedback,
        LowPass,
        EF21,
    )
}

WRAPPERS: dict[str, type[Wrapper]] = {
    wrapper.name: wrapper
    for wrapper in (
        Warmup,
        Phases,
        Layers,
    )
}
