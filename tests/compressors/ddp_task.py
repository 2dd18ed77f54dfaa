"""What the simulator and real processes both train in the tests of the DistributedDataParallel hook."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from gradwire.compressors.base import Memory, Passes, Scheme, SchemeError, Shape, Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.partition import Granularity
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks.base import Model, Split, Splits, Task
from gradwire.sim.training.plan import Schedule, Training

WORKERS = 4
STEPS = 20
PLAN = Training(
    workers=WORKERS,
    batch_size=3,
    steps=STEPS,
    seed=3,
    learning_rate=0.05,
    schedule=(Schedule(name="CosineAnnealingLR", options={"T_max": STEPS}),),
    dtype="float64",
    device="cpu",
)


@dataclass(frozen=True)
class Points(Task):
    """Three classes of random points: a network of three layers, some of odd sizes."""

    metric = "loss"
    higher_is_better = False

    def splits(self) -> Splits:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(WORKERS * 3 * 5, 6, generator=generator)
        train = Split((x, x.abs().argmax(1) % 3))
        return Splits(train, train, train)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 11), nn.Tanh(), nn.Linear(11, 3))

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


SHAPES: dict[str, Shape] = {
    "0.weight": (16, 6),
    "0.bias": (16,),
    "2.weight": (11, 16),
    "2.bias": (11,),
    "4.weight": (3, 11),
    "4.bias": (3,),
}
"""Of that network's parameters."""


class Nets(nn.Module):
    """Independent copies of the network, one for each scheme; what is returned is [nets, B, 3]."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Points().model() for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets])


@dataclass(frozen=True)
class Together(Points):
    """As many networks as there are layer-wise cases, each with a loss of its own, trained in the same steps."""

    rounded: bool = False

    def model(self) -> nn.Module:
        return Nets(len(cases(self.rounded)))

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        found = model(batch[0])
        return nn.functional.cross_entropy(found.flatten(0, 1), batch[1].repeat(len(found))) * len(found)


@dataclass(frozen=True)
class EachItsOwn(Scheme):
    """Gives each network of :class:`Together` its scheme."""

    rounded: bool = False

    name = "each"
    title = "a scheme for each network"
    paper = "none"
    collective = "theirs"

    def for_unit(self, name: str, shape: Shape) -> Scheme:
        return parse_scheme(cases(self.rounded)[int(name.split(".")[1])])

    @property
    def unbiased(self) -> bool:
        raise NotImplementedError

    def error_bound(self, shape: Shape) -> float:
        raise NotImplementedError

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        raise NotImplementedError

    def passes(self, shape: Shape) -> Passes:
        raise NotImplementedError


OTHERS = (
    "twosided(topk(density=0.25))",
    "twosided(graddrop(rate=0.8))",
    "momentum(topk(density=0.25), clip=1)",
    "lowpass(cltk(density=0.25))",
    "ef21(topk(density=0.25))",
    "ef(topk(density=0.5) | qsgd(bits=8))",
    "warmup(dgcsample(density=0.05), start=0.5, steps=10)",
    "phases(powersgd(rank=3), powersgd(rank=1), at=7)",
)
"""Each of the other memories, a composition and schedules."""


@lru_cache
def cases(rounded: bool) -> list[str]:
    """Return every listed scheme that works on layers, its examples under error feedback where that takes them, OTHERS.

    Those that have ``rounded`` sums, in less than the gradients' float64, are apart: their results depend on the order
    of additions.
    """
    found = []
    for name, kind in SCHEMES.items():
        scheme = parse_scheme(name)
        found.append(scheme)
        for example in map(parse_scheme, kind.examples or (name,)):
            wrapped = (
                None if any(isinstance(part, Memory) for part in scheme.parts()) else parse_scheme(f"ef({example})")
            )
            found.append(wrapped if wrapped and accepted(wrapped) else example)
    found += map(parse_scheme, OTHERS)
    return [str(scheme) for scheme in dict.fromkeys(found) if accepted(scheme) and sums_are_rounded(scheme) == rounded]


def accepted(scheme: Scheme) -> bool:
    """Return whether a scheme takes all layers of the network, and plain SGD."""
    try:
        scheme.check_optimizer(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))
        for shape in SHAPES.values():
            scheme.init(shape, 1, torch.zeros(shape))
    except SchemeError:
        return False
    return "layer" in scheme.granularity


def sums_are_rounded(scheme: Scheme) -> bool:
    """Return whether what is summed over float64 gradients is of less precision."""
    x = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    item = Item(x, scheme, scheme.init((16, 6), 2, x[0]), Turn(0, 0, "u", (0, 1), 2))
    _, log = StackedDriver(2).exchange([item])
    return any(collective.dtype in ("float32", "float16", "bfloat16") for collective in log.collectives)


def whole() -> list[str]:
    """Return the schemes that work on the whole model only, and some that also do."""
    only = [name for name, scheme in SCHEMES.items() if scheme().granularity == {"model"}]
    return ["dense", "ef(topk(density=0.1))", "ef(randomk(density=0.2))", *only]


def plan_of(unit: Granularity, dtype: str = "float64") -> Training:
    return PLAN.model_copy(update={"unit": unit, "message": "model" if unit == "model" else "bucket", "dtype": dtype})


def adam_plan(unit: Granularity) -> Training:
    """Return the plan of 1-bit Adam, which has an optimizer of its own."""
    options = {"freeze_step": 6, "betas": [0.9, 0.99], "eps": 1e-3}
    return plan_of(unit).model_copy(update={"optimizer": "OneBitAdam", "optimizer_options": options})


def trainings() -> list[tuple[Task, Scheme, Training]]:
    """Return what the simulator and real processes both train: all schemes on layers, then the rest."""
    single = ("dense", "ef(topk(density=0.25))", "ef(powersgd(rank=2))")
    return [
        (Together(), EachItsOwn(), plan_of("layer")),
        (Together(rounded=True), EachItsOwn(rounded=True), plan_of("layer")),
        *((Points(), parse_scheme(text), plan_of("model")) for text in whole()),
        *((Points(), parse_scheme(text), plan_of("layer", "float32")) for text in single),
        *((Points(), parse_scheme("onebitadam(freeze_step=6)"), adam_plan(unit)) for unit in ("layer", "model")),
    ]
