"""How a step is played: what overlaps, how messages travel, and how the answer is computed."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...compressors.wirelog import Operation
from ..network.costs import Gathers

Engine = Literal["auto", "closed-form", "events"]
AllReduce = Literal[
    "auto", "ring", "halving-doubling", "recursive-doubling", "double-tree", "hierarchical", "direct"
]  # fmt: skip


class StepOptions(BaseModel):
    """How a step is played.

    The defaults are what DistributedDataParallel does with a communication hook, on textbook algorithms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: Annotated[bool, Field(strict=True, description="communicate while the backward pass still runs")] = True
    blocking: Annotated[
        bool, Field(strict=True, description="decode each message before the next one is encoded, waiting for it")
    ] = False
    streams: Annotated[
        int, Field(strict=True, ge=1, description="communication streams of a worker; messages take them in turn")
    ] = 1
    codec: Annotated[
        Literal["compute", "stream"], Field(description="where encoding and decoding run: with the model, or beside it")
    ] = "compute"
    slowdown: Annotated[
        float,
        Field(strict=True, ge=1, allow_inf_nan=False, description="of encoding and decoding on a stream of their own"),
    ] = 1.0
    gathers: Annotated[Gathers, Field(description="whether gathered payloads are padded to the largest")] = "padded"
    one_bucket_first: Annotated[
        bool, Field(strict=True, description="the first step sends all in one message, before buckets are rebuilt")
    ] = False
    all_reduce: Annotated[AllReduce, Field(description="algorithm; auto: as NCCL 2.18 chooses")] = "ring"
    reduce_scatter: Annotated[
        Literal["auto", "ring", "halving", "direct"], Field(description="algorithm, likewise")
    ] = "ring"  # fmt: skip
    all_gather: Annotated[
        Literal["auto", "ring", "bruck", "direct"], Field(description="algorithm, likewise")
    ] = "ring"  # fmt: skip
    broadcast: Annotated[
        Literal["auto", "binomial", "chain", "double-tree"], Field(description="algorithm, likewise")
    ] = "binomial"
    all_to_all: Annotated[
        Literal["auto", "pairwise", "direct"], Field(description="algorithm, likewise")
    ] = "pairwise"  # fmt: skip
    engine: Annotated[
        Engine, Field(description="closed form, every transfer played, or the first wherever it is exact")
    ] = "auto"

    @property
    def algorithms(self) -> dict[Operation, str]:
        """The algorithm of each operation that has several."""
        return {
            "all-reduce": self.all_reduce,
            "reduce-scatter": self.reduce_scatter,
            "all-gather": self.all_gather,
            "broadcast": self.broadcast,
            "all-to-all": self.all_to_all,
        }
