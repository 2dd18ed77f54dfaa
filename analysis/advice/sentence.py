"""The answer of an advice in one sentence."""

from ...sim.units import format_size
from ..formatting import (
    format_metric,
    format_percent,
    format_ratio,
    format_seconds,
    format_target,
    is_share,
    significant,
)
from ..verdict import TIE, faster_text, much_slower
from .advice import Advice, Option


def sentence(advice: Advice) -> str:
    """Return the answer in one sentence."""
    text = _sentence(advice)
    return text + (f" ({advice.proxy})" if advice.proxy else "")


def _sentence(advice: Advice) -> str:
    if advice.answer == "cannot say":
        return f"Cannot say: no scheme reached {_wanted(advice)} from every seed."
    if advice.best is None:
        return _without_rival(advice)
    best = advice.option(advice.best)
    if advice.baseline is None:
        return (
            f"Compress: {best.scheme} reaches {_wanted(advice)} in {format_seconds(best.time_to_target_s)} of virtual "
            f"time, which no uncompressed scheme does from every seed."
        )
    base = advice.option(advice.baseline)
    return f"{_decided(advice, best, base)}; {_rest(advice, best, base)}."


def _decided(advice: Advice, best: Option, base: Option) -> str:
    """Return the answer with its reason."""
    claim = _claim(advice, best, base)
    match advice.answer:
        case "compress":
            condition = "" if advice.trained else _condition(best)
            return f"Compress{condition}: {claim}, because {_reason(best, base)}"
        case "undecided":
            return f"Undecided: {claim}, which is {_doubt(advice, best)}"
        case "no difference":
            return f"It makes no difference: {claim}, within 2 %"
    if best.gain is not None and best.gain.ratio > TIE:
        return f"Do not compress, unless a worse model will do: {claim}"
    return f"Do not compress: at best, {claim}, because {_hindrance(best, base)}"


def _without_rival(advice: Advice) -> str:
    if all(option.uncompressed for option in advice.options):
        return f"Nothing to decide: no compressing scheme was given beside {advice.baseline}."
    what = "trained to the end" if advice.by_step else f"reached {_wanted(advice)} from every seed"
    return f"Do not compress: no compressing scheme {what}, which {advice.baseline} did."


def _condition(best: Option) -> str:
    return f", if training then needs less than {_more(best.affordable)} more steps"


def _more(share: float) -> str:
    """Write a share of steps more: in percent, from 10 on as a multiple."""
    return format_percent(share) if share < 10 else f"{significant(share, 2)} times"


def _claim(advice: Advice, best: Option, base: Option) -> str:
    """Say how long what counts takes, compared with the baseline, and how sure that is."""
    assert best.gain is not None
    if advice.by_step:
        text = f"a step with {best.scheme if advice.trained else named(best)} takes {format_seconds(best.step_s)}"
        relation = _relation(best.gain.ratio, f"with {named(base)}", "shorter", "longer")
    else:
        text = f"{best.scheme} reaches {_wanted(advice)} in {format_seconds(best.time_to_target_s)} of virtual time"
        relation = _relation(best.gain.ratio, named(base), "sooner", "later")
    sure = f" (95 % confidence over {best.gain.seeds} seeds: {interval(best)})" if interval(best) else ""
    return f"{text}, {relation}{sure}"


def _relation(ratio: float, other: str, faster: str, slower: str) -> str:
    """Write a ratio of speeds as a comparison with what ``other`` names."""
    if much_slower(ratio):
        return f"{significant(1 / ratio, 2)} times as long as {other}"
    return f"{faster_text(ratio, faster, slower)} than {other}"


def named(option: Option) -> str:
    """Write a scheme with its buckets."""
    size = option.bucket_bytes
    return option.scheme + ("" if size is None else f" in buckets of {format_size(int(size))}")


def interval(option: Option) -> str:
    """Write the confidence interval of a gain; empty if there is none."""
    gain = option.gain
    if gain is None or gain.low is None or gain.high is None:
        return ""
    return f"{significant(gain.low)} to {format_ratio(gain.high)}"


def _reason(best: Option, base: Option) -> str:
    """Say what the faster scheme saves."""
    fewer = (base.steps_to_target or 1) / (best.steps_to_target or 1)
    if best.steps_to_target and fewer > best.step_gain:
        return f"it needs {best.steps_to_target:,.0f} steps instead of {base.steps_to_target:,.0f}"
    return f"{format_percent(base.exposed_s / base.step_s)} of the {base.scheme} step is exposed communication"


def _hindrance(best: Option, base: Option) -> str:
    """Say why the best compressing scheme is not faster."""
    if best.steps_to_target and base.steps_to_target and best.steps_to_target > TIE * base.steps_to_target:
        return f"it needs {best.steps_to_target:,.0f} steps instead of {base.steps_to_target:,.0f}"
    saved, exposed = format_seconds(max(0.0, base.exposed_s - best.exposed_s)), format_seconds(base.exposed_s)
    own, other = format_seconds(best.codec_s), format_seconds(base.codec_s)
    return (
        f"it saves {saved} of {exposed} of exposed communication; encoding and decoding take {own} instead of {other}"
    )


def _doubt(advice: Advice, best: Option) -> str:
    if best.gain is not None and not best.gain.decided:
        return "no more than chance from so few seeds"
    assert advice.error is not None
    return f"within the model's error of {format_percent(advice.error.error)}"


def _rest(advice: Advice, best: Option, base: Option) -> str:
    """Say what is known of the accuracy and, if that is nothing, which other schemes would take as long."""
    if not advice.trained:
        near = [one.scheme for one in advice.options if _near(one, best)]
        others = f"; within 2 % of it: {', '.join(near)}" if near else ""
        return f"how the accuracy fares is not known without training{others}"
    own, other = (format_metric(one.final_metric, advice.metric) for one in (best, base))
    return f"its final test {advice.metric} is {own}" + (f" instead of {other}" if own != other else " as well")


def _near(one: Option, best: Option) -> bool:
    return not one.uncompressed and one.scheme != best.scheme and one.step_s <= TIE * best.step_s


def _wanted(advice: Advice) -> str:
    text = format_target(advice.target or 0.0, advice.metric)
    return (
        f"{text} validation {advice.metric}" if is_share(advice.metric) else f"a validation {advice.metric} of {text}"
    )
