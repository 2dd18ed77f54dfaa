"""Advice as people read it: a table of the schemes, and lines on what stands behind the answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...sim.units import format_size
from ..formatting import (
    format_bytes,
    format_metric,
    format_percent,
    format_ratio,
    format_seconds,
    significant,
)
from .advice import Advice, Option, Trial
from .choice import SEARCHED, UNCOMPRESSED, Change
from .sentence import interval

_AMPLE = Console(width=1000)  # measures what a table needs, whatever the real console has
_LEAST_SHOWN = 5e-4
"""Gains that change by less than this share are said to stay."""


@dataclass(frozen=True)
class _Column:
    title: str
    text: Callable[[Option], str]
    importance: int


def advice_table(advice: Advice, width: int) -> Table:
    """Return a row a scheme; where it is too narrow for all numbers, the least important are left out."""
    shown = list(_columns(advice))
    while len(shown) > 1 and _AMPLE.measure(_table(advice, shown)).maximum > width:
        shown.remove(min(shown, key=lambda column: column.importance))
    return _table(advice, shown)


def _table(advice: Advice, shown: list[_Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("\nscheme", overflow="fold", min_width=10)
    for column in shown:
        title = column.title if "\n" in column.title else f"\n{column.title}"
        table.add_column(Text(title), justify="right", no_wrap=True)
    for option in advice.options:
        name = Text(option.scheme, style="bold" if option.scheme in (advice.baseline, advice.best) else "")
        table.add_row(name, *(column.text(option) for column in shown))
    return table


def _columns(advice: Advice) -> Iterator[_Column]:
    yield _Column("bytes\na step", lambda one: format_bytes(one.sent_bytes), 4)
    if any(one.bucket_bytes is not None for one in advice.options):
        yield _Column("buckets", _buckets, 0)
    yield _Column("compute", lambda one: format_seconds(one.compute_s), 1)
    yield _Column("encode\n+decode", lambda one: format_seconds(one.codec_s), 2)
    yield _Column("exposed\ncomm.", lambda one: format_seconds(one.exposed_s), 3)
    yield _Column("step", lambda one: format_seconds(one.step_s), 8)
    if not advice.by_step:
        yield _Column("steps to\ntarget", _steps, 5)
        yield _Column("time to\ntarget", lambda one: format_seconds(one.time_to_target_s), 9)
    yield _Column("gain", lambda one: format_ratio(None if one.gain is None else one.gain.ratio), 12)
    if any(map(interval, advice.options)):
        yield _Column("95 %\nconfidence", lambda one: interval(one) or "-", 11)
    if not advice.trained:
        yield _Column("affordable\nsteps", _affordable, 10)
    else:
        yield _Column(f"final\n{advice.metric}", lambda one: _final(one, advice.metric), 10)
    yield _Column("GPU\nmemory", lambda one: format_bytes(one.memory.total_bytes), 6)
    yield from _cost_columns(advice)


def _buckets(option: Option) -> str:
    return "-" if option.bucket_bytes is None else format_size(int(option.bucket_bytes))


def _final(option: Option, metric: str) -> str:
    return option.failure.partition(":")[0] or format_metric(option.final_metric, metric)


def _steps(option: Option) -> str:
    if option.steps_to_target is None:
        return f"{option.reached} of {option.seeds}"
    return f"{option.steps_to_target:,.0f}"


def _affordable(option: Option) -> str:
    """Write by how many steps more than the baseline's a scheme would take as long."""
    share = option.affordable
    return "-" if option.uncompressed else f"{'+' if share >= 0 else '-'}{format_percent(abs(share))}"


def _cost_columns(advice: Advice) -> Iterator[_Column]:
    price = advice.price
    if price is None:
        return
    unit = price.currency or "cost"

    def cost(name: str) -> Callable[[Option], str]:
        def text(option: Option) -> str:
            return significant(getattr(advice.costs(option), name))

        return text

    yield _Column(f"{unit}\na step", cost("step"), 7)
    if price.steps is not None:
        yield _Column(f"{unit} of\n{price.steps:,} steps", cost("run"), 7)
    if not advice.by_step:
        yield _Column(f"{unit} to\ntarget", cost("target"), 7)


# --------------------------------------------------------------------------------------------------------- the lines


def lines(advice: Advice) -> Iterator[tuple[str, str]]:
    """Yield what stands behind the answer: a short name for it, and a line without its stop."""
    yield from _baseline_lines(advice)
    for scheme in dict.fromkeys((advice.baseline, advice.best)):
        if scheme is not None:
            yield f"step of {scheme}", _shares(advice.option(scheme))
    yield (
        "GPU memory",
        "; ".join(_memory(one) for one in advice.options if one.scheme in (advice.baseline, advice.best)),
    )
    yield "model error", _error(advice)
    yield from _sensitivity(advice)
    yield from _unmeasured(advice)
    yield "outside of what was measured", "; ".join(advice.outside) or "nothing"
    yield "compute times", advice.compute_source


def _baseline_lines(advice: Advice) -> Iterator[tuple[str, str]]:
    """Say among what the baseline is the best."""
    tried: dict[str, list[Trial]] = {}
    for trial in advice.trials:
        tried.setdefault(trial.scheme, []).append(trial)
    if len(advice.trials) > 1:
        what = "step" if advice.by_step else "time to the target"
        yield "baseline", f"the shortest {what} of " + "; ".join(_tried(*group) for group in tried.items())


def _tried(scheme: str, trials: Sequence[Trial]) -> str:
    """Write how a scheme did with each size of buckets."""
    ranked = sorted(trials, key=lambda trial: trial.bucket_bytes or 0)
    seconds = ", ".join(format_seconds(trial.seconds) for trial in ranked)
    sizes = ", ".join(format_size(int(trial.bucket_bytes)) for trial in ranked if trial.bucket_bytes is not None)
    return f"{scheme} {seconds}" + (f" in buckets of {sizes}" if sizes else "")


def _shares(option: Option) -> str:
    """Say what dominates a step."""
    parts = {
        "the model's own work": option.compute_s,
        "exposed communication": option.exposed_s,
        "encoding and decoding": option.codec_s,
    }
    ranked = sorted(parts, key=lambda name: -parts[name])
    return ", ".join(f"{format_percent(parts[name] / option.step_s)} {name}" for name in ranked)


def _memory(option: Option) -> str:
    memory = option.memory
    return f"{option.scheme} keeps {format_bytes(memory.state_bytes)} and buffers {format_bytes(memory.buffer_bytes)}"


def _error(advice: Advice) -> str:
    error = advice.error
    if error is None:
        return "not known: no such model, cluster and number of workers has been validated"
    differs = f"; not validated: {', '.join(error.differs)}" if error.differs else ""
    fewest, most = error.workers
    return (
        f"steps with {error.scheme} on {fewest} to {most} workers were within {format_percent(error.error)} of "
        f"measurements ({error.source}){differs}"
    )


def _sensitivity(advice: Advice) -> Iterator[tuple[str, str]]:
    if advice.effects and advice.best is not None:
        own = advice.option(advice.best).gain
        assert own is not None
        yield f"gain of {advice.best}", f"{format_ratio(own.ratio)}; with 50 % more of " + _effects(advice, own.ratio)
        yield "without effect", ", ".join(e.key for e in advice.effects if not e.has_effect) or "none"
        missing = [effect.key for effect in advice.effects if effect.gain is None]
        if missing:
            yield "not computed", ", ".join(missing)
    if advice.tippings:
        moved = [f"{tipping.key} {_change(change)}" for tipping in advice.tippings for change in tipping.changes]
        yield "another answer", "; ".join(moved) or "none"
        unmoved = [tipping.key for tipping in advice.tippings if not tipping.changes]
        yield f"same answer within {SEARCHED:.0f} times", ", ".join(unmoved) or "none"
        short = [
            t for t in advice.tippings if not t.changes and (t.lowest > 1.01 / SEARCHED or t.highest < SEARCHED / 1.01)
        ]
        for tipping in short:
            span = f"{significant(tipping.lowest, 2)} to {significant(tipping.highest, 2)} times"
            yield f"{tipping.key} was searched", f"from {span} only, since no other can be timed"


def _effects(advice: Advice, own: float) -> str:
    known = [(effect, effect.gain) for effect in advice.effects if effect.gain is not None and effect.has_effect]
    moved = [(effect, gain) for effect, gain in known if abs(gain / own - 1) >= _LEAST_SHOWN]
    moved.sort(key=lambda pair: -max(pair[1] / own, own / pair[1]))
    texts = [f"{effect.key} {format_ratio(gain)}" for effect, gain in moved]
    still = [effect.key for effect, gain in known if abs(gain / own - 1) < _LEAST_SHOWN]
    if still:
        texts.append(f"about the same with {', '.join(still)}")
    return ", ".join(texts)


def _change(change: Change) -> str:
    """Write from where on another scheme leads."""
    end = "from" if change.factor > 1 else "below"
    return f"{end} {_times(change.factor)}: {_led(change.leader)}"


def _led(leader: str) -> str:
    return "do not compress" if leader == UNCOMPRESSED else leader


def _times(factor: float) -> str:
    return f"{significant(factor)} times" if factor >= 1 else f"1/{significant(1 / factor)}"


def _unmeasured(advice: Advice) -> Iterator[tuple[str, str]]:
    parts = list(dict.fromkeys(part for option in advice.options for part in option.estimated))
    if not advice.flips:
        return
    if not parts:
        yield "costs that nobody measured", "none"
        return
    what = "lead" if advice.answer == "undecided" else "answer"
    texts = []
    for flip in advice.flips:
        size = "larger" if flip.factor > 1 else "smaller"
        who = "no compression" if flip.leader == UNCOMPRESSED else flip.leader
        end = "flips" if flip.flips else "stays"
        texts.append(f"three times {size}, {who} leads ({format_ratio(flip.gain)} at best): the {what} {end}")
    yield "costs that nobody measured", f"{', '.join(parts)}; " + "; ".join(texts)
