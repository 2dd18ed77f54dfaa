"""The one list of schemes and memories. To add one, write its file and its line here."""

from .base import Memory, Scheme
from .feedback import ErrorFeedback
from .lowrank.powersgd import PowerSGD
from .quantizers.dense import Dense
from .quantizers.qsgd import QSGD
from .sparsifiers.blocktopk import BlockTopK
from .sparsifiers.chunktopk import ChunkTopK
from .sparsifiers.randomblock import RandomBlock
from .sparsifiers.randomk import RandomK
from .sparsifiers.sampledtopk import SampledTopK
from .sparsifiers.topk import TopK
from .sparsifiers.wangni import Wangni

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Dense,
        TopK,
        BlockTopK,
        ChunkTopK,
        SampledTopK,
        RandomK,
        RandomBlock,
        Wangni,
        QSGD,
        PowerSGD,
    )
}

MEMORIES: dict[str, type[Memory]] = {
    memory.name: memory
    for memory in (
        ErrorFeedback,
    )
}  # fmt: skip
