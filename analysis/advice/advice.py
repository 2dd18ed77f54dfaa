"""What an advice consists of, in numbers: the schemes side by side, the answer, and what it hangs on; no text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..predictions import Price
from ..scaling import step_cost
from ..verdict import TIE
from .choice import Flip, Tipping
from .gains import Gain
from .memory import Memory

Answer = Literal["compress", "no difference", "undecided", "do not compress", "cannot say"]


@dataclass(frozen=True)
class Option:
    """One scheme: what it costs, and what it gains over the baseline.

    Attributes
    ----------
    scheme : str
    uncompressed : bool
    bucket_bytes : float or None
        Size of its buckets, the fastest of those tried; None where messages are not buckets.
    sent_bytes : float
        What a worker hands over in a step.
    compute_s, codec_s, exposed_s, step_s : float
        Means of a step, over seeds if there are several: the model's own work; encoding and decoding; communication
        that nothing hides; the sum.
    memory : Memory
    cost_source : str
        Where the costs of encoding and decoding come from.
    estimated : tuple of str
        The parts of the scheme whose cost nobody has measured on the device.
    step_gain : float
        The baseline's step over its own.
    gain : Gain or None
        Of what counts, the step or the time to the target; None if it was not reached.
    steps_to_target, time_to_target_s : float or None
        Means over seeds, the latter geometric; None unless all reach it.
    reached, seeds : int
        How many seeds reached the target, of how many; 0 where nothing is trained.
    final_metric : float or None
        Of the test split, mean over seeds.
    harms : bool or None
        Whether the final metric is worse than the baseline's by more than is called equal; None if it is not known.
    failure : str
        How it failed to train in some seed; empty if it did not.
    """

    scheme: str
    uncompressed: bool
    bucket_bytes: float | None
    sent_bytes: float
    compute_s: float
    codec_s: float
    exposed_s: float
    step_s: float
    memory: Memory
    cost_source: str
    estimated: tuple[str, ...]
    step_gain: float = 1.0
    gain: Gain | None = None
    steps_to_target: float | None = None
    time_to_target_s: float | None = None
    reached: int = 0
    seeds: int = 0
    final_metric: float | None = None
    harms: bool | None = None
    failure: str = ""

    @property
    def affordable(self) -> float:
        """The share of steps more than the baseline's that the scheme could need before its lead is lost."""
        return self.step_gain - 1


@dataclass(frozen=True)
class Costs:
    """What an option costs in money; None where nothing is asked for or reached."""

    step: float
    run: float | None
    target: float | None


@dataclass(frozen=True)
class Trial:
    """An uncompressed scheme with buckets of one size."""

    scheme: str
    bucket_bytes: float | None
    seconds: float


@dataclass(frozen=True)
class ModelError:
    """How far predicted steps were from measured ones in a set-up like this.

    Attributes
    ----------
    error : float
        The largest relative difference.
    scheme : str
        What was compared.
    workers : tuple of int
        From how many to how many.
    source : str
    differs : tuple of str
        In what this job differs from what was compared.
    """

    error: float
    scheme: str
    workers: tuple[int, int]
    source: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """What more of one input does to the gain.

    Attributes
    ----------
    key : str
    factor : float
        How many times as large the input was made.
    gain : float or None
        Of the scheme in question, with the changed input; None if it could not be computed.
    has_effect : bool
        Whether what counts changes at all, of the scheme or of the baseline.
    """

    key: str
    factor: float
    gain: float | None
    has_effect: bool


@dataclass(frozen=True)
class Advice:
    """Compress or not, with what, and what the answer hangs on.

    Attributes
    ----------
    subject : str
        What is advised on, in a line.
    workers : int
    trained : bool
        Whether accuracies are known.
    by_step : bool
        Whether steps are compared, and not times to a target.
    answer : str
    best : str or None
        The scheme to compress with or, if the answer is not to, the best of those that compress.
    baseline : str or None
        The best uncompressed scheme.
    options : tuple of Option
    trials : tuple of Trial
        The uncompressed cases among which the baseline is the best.
    error : ModelError or None
        None where predictions for such a set-up have not been validated.
    effects : tuple of Effect
    tippings : tuple of Tipping
    flips : tuple of Flip
    outside : tuple of str
        What lies outside of what was calibrated, a line each.
    notes : tuple of str
    compute_source : str
    price : Price or None
    metric : str
        Of the task; empty if nothing is trained.
    target : float or None
    proxy : str or None
        What must be said wherever a number shows if another model is timed than the one that is trained.
    """

    subject: str
    workers: int
    trained: bool
    by_step: bool
    answer: Answer
    best: str | None
    baseline: str | None
    options: tuple[Option, ...]
    trials: tuple[Trial, ...]
    error: ModelError | None
    effects: tuple[Effect, ...]
    tippings: tuple[Tipping, ...]
    flips: tuple[Flip, ...]
    outside: tuple[str, ...]
    notes: tuple[str, ...]
    compute_source: str
    price: Price | None
    metric: str = ""
    target: float | None = None
    proxy: str | None = None

    def option(self, scheme: str | None) -> Option:
        """Return the option of a scheme; raises ``KeyError`` if there is none."""
        for option in self.options:
            if option.scheme == scheme:
                return option
        raise KeyError(scheme)

    def costs(self, option: Option) -> Costs | None:
        """Return what an option costs; None without a price."""
        if self.price is None:
            return None
        step = step_cost(option.step_s, self.workers, self.price.per_gpu_hour)
        run = None if self.price.steps is None else self.price.steps * step
        reached_s = option.time_to_target_s
        target = None if reached_s is None else step_cost(reached_s, self.workers, self.price.per_gpu_hour)
        return Costs(step, run, target)


def decide(
    options: Sequence[Option], baseline: Option | None, error: ModelError | None
) -> tuple[Answer, Option | None]:
    """Return the answer, and the compressing scheme that it speaks of.

    A scheme that does harm, or that failed or missed the target in some seed, is not advised. The gain must be more
    than a tie, its interval must not hold 1, and it must be larger than the model's error where that is known.
    """
    rivals = [one for one in options if not one.uncompressed and not one.failure]
    if baseline is None:
        reached = [one for one in rivals if one.time_to_target_s is not None]
        if not reached:
            return "cannot say", None
        return "compress", min(reached, key=lambda one: one.time_to_target_s or 0.0)
    ranked = sorted((one for one in rivals if one.gain), key=lambda one: -one.gain.ratio if one.gain else 0.0)
    if not ranked:
        return "do not compress", None
    harmless = [one for one in ranked if not one.harms]
    best = (harmless or ranked)[0]
    assert best.gain is not None
    if best.gain.ratio < 1 / TIE or (best.harms and best.gain.ratio > TIE):
        return "do not compress", best
    if best.gain.ratio <= TIE:
        return "no difference", best
    if not best.gain.decided or (error is not None and best.gain.ratio - 1 <= error.error):
        return "undecided", best
    return "compress", best
