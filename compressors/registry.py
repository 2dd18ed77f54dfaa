"""The one list of schemes, memories and wrappers. To add one, write its file and its line here."""

from .adaptive import CAT
from .base import Memory, Scheme, Wrapper
from .feedback import EF21, ErrorFeedback, LowPass
from .lowrank.atomo import Atomo
from .lowrank.powersgd import PowerSGD
from .momentum import Momentum
from .onebitadam import OneBitAdamScheme
from .policy import Layers
from .quantizers.dense import Dense
from .quantizers.int8 import Int8
from .quantizers.mx import MX
from .quantizers.natural import Natural
from .quantizers.nuqsgd import NUQSGD
from .quantizers.qsgd import QSGD
from .quantizers.sharedqsgd import SharedQSGD
from .quantizers.signs import OneBit, ScaledSign, SignSGD, Signum
from .quantizers.terngrad import SharedTernGrad, TernGrad
from .schedule import Phases, Warmup
from .sparsifiers.blocktopk import BlockTopK
from .sparsifiers.chunktopk import ChunkTopK
from .sparsifiers.cltk import CLTK
from .sparsifiers.dgc import DGC
from .sparsifiers.dgcsample import DGCSample
from .sparsifiers.graddrop import GradDrop
from .sparsifiers.gtopk import GTopK
from .sparsifiers.mstopk import MSTopK
from .sparsifiers.oktopk import OkTopK
from .sparsifiers.randomblock import RandomBlock
from .sparsifiers.randomk import RandomK
from .sparsifiers.sampledtopk import SampledTopK
from .sparsifiers.sidco import SIDCo
from .sparsifiers.threshold import Threshold
from .sparsifiers.topk import TopK
from .sparsifiers.wangni import Wangni
from .twosided import TwoSided

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
        CLTK,
        GTopK,
        OkTopK,
        GradDrop,
        Threshold,
        SIDCo,
        MSTopK,
        DGCSample,
        DGC,
        Wangni,
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
        OneBitAdamScheme,
        PowerSGD,
        Atomo,
        CAT,
    )
}

MEMORIES: dict[str, type[Memory]] = {
    memory.name: memory
    for memory in (
        ErrorFeedback,
        LowPass,
        EF21,
        TwoSided,
        Momentum,
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
