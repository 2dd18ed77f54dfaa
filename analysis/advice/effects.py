"""Effects: what half as much more of each input does to a scheme's gain over the best uncompressed case."""

from collections.abc import Iterator, Sequence

from ...sim.prediction import Prediction
from ...sim.step.synthetic import Cache
from ..influence import CHANGE, TOLERANCE, influences
from .advice import Effect
from .cases import HERE, KEYS, Case


def case_effects(cases: Sequence[Case], scheme: str) -> Iterator[Effect]:
    """Change each input that cases have; uncompressed schemes choose their buckets anew.

    Parameters
    ----------
    cases : sequence of Case
        With all uncompressed ones.
    scheme : str
        The one whose gain is asked for.
    """
    dense = [case for case in cases if case.uncompressed]
    own = next(case for case in cases if case.scheme == scheme)
    before_s = [case.seconds() for case in (*dense, own)]
    for name in HERE._fields:
        if name == "intra" and own.inputs.cluster.intra is None:
            continue
        after_s = [case.seconds(HERE._replace(**{name: CHANGE})) for case in (*dense, own)]
        has_effect = any(abs(after / before - 1) > TOLERANCE for after, before in zip(after_s, before_s, strict=True))
        yield Effect(KEYS[name], CHANGE, min(after_s[:-1]) / after_s[-1], has_effect)


def model_effects(
    baseline: Prediction, best: Prediction, cases: Sequence[Case], cache: Cache | None = None
) -> Iterator[Effect]:
    """Change every number that went into two predictions.

    What cases have too is theirs; where other numbers change, the baseline keeps its buckets.
    """
    ratio = baseline.step_s / best.step_s
    better = {effect.key: effect for effect in case_effects(cases, best.job.scheme)}
    for one, other in zip(influences(baseline, cache), influences(best, cache), strict=True):
        gain = None if one.ratio is None or other.ratio is None else ratio * one.ratio / other.ratio
        yield better.get(one.key, Effect(one.key, one.factor, gain, one.has_effect or other.has_effect))
