"""The explorer: sliders that move the curves and the verdict of a report, computed in the page itself."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from ...sim.run import Run
from ..comparison import PHASES, Comparison
from ..exploration import Candidate, Curve, Point, own_point, reason_against, run_candidates
from ..formatting import format_seconds, format_target, is_share
from ..verdict import wanted
from .export import exported
from .frame import heading, hint, resource

__all__ = ["Candidate", "Curve", "Point", "explorer_html", "no_explorer", "run_explorer"]

_SCRIPTS = ("closed_form.js", "formatting.js", "wording.js", "exploration.js", "chart.js", "explorer.js")


class _Slider(NamedTuple):
    """A slider over decimal logarithms; one step below ``low`` stands 0 where that is allowed."""

    name: str
    label: str
    low: float
    high: float
    zero: bool = False


_STEP = 0.01
_SLIDERS = (
    _Slider("bandwidth", "bandwidth", 7, 12),
    _Slider("latency", "latency", -7, -2),
    _Slider("cost", "cost of encoding and decoding", -2, 2, zero=True),
)


def explorer_html(
    candidates: Sequence[Candidate],
    *,
    metric: str,
    higher_is_better: bool,
    target: float | None,
    start: Point,
    proxy: str | None = None,
) -> str:
    """Return the explorer as a part of a page: markup, data and script; or why there is none.

    Parameters
    ----------
    candidates : sequence of Candidate
        Schemes at all densities and numbers of workers that the sliders can be moved to.
    metric : str
        Its name.
    higher_is_better : bool
    target : float or None
        What the validation metric is to reach.
    start : Point
        Where the sliders are at first; its density and workers are some candidate's. The launch stays as it is.
    proxy : str or None
        What must be said if another model is timed than the one that is trained
        (:func:`gradwire.analysis.comparison.proxy_of`).
    """
    why = reason_against(candidates)
    if why is not None:
        return no_explorer(why)
    densities = sorted({one.density for one in candidates if one.density is not None})
    workers = sorted({one.workers for one in candidates})
    if start.workers not in workers or (densities and start.density not in densities):
        raise ValueError(f"start = {start} must have a density and workers of a candidate")
    data = {
        "goal": {
            "metric": metric,
            "share": is_share(metric),
            "higher": higher_is_better,
            "target": target,
            "targetText": "" if target is None else format_target(target, metric),
            "wanted": "" if target is None else wanted(target, metric),
            "proxy": proxy,
        },
        "start": {
            "bandwidth": start.bandwidth_bps,
            "latency": start.latency_s,
            "launch": start.launch_s,
            "cost": start.factor,
            "density": start.density if densities else None,
            "workers": start.workers,
        },
        "densities": densities,
        "workers": workers,
        **exported(candidates),
    }
    controls = [
        *_positions("density", densities),
        *(_quantity(slider) for slider in _SLIDERS),
        *_positions("workers", workers),
    ]
    parts = (
        '<div class="explorer">',
        '<p class="answer" role="status" aria-live="polite"></p>',
        "<noscript><p>The explorer needs JavaScript, which is switched off here.</p></noscript>",
        '<div class="panel">',
        '<div class="controls" role="group" aria-label="Where to look">',
        *controls,
        '<button type="button" class="reset">Back to the start</button>',
        "</div>",
        f'<div class="outcome">{_figure(metric, proxy)}<p class="hint untrained"></p></div>',
        "</div>",
        _table(metric, target, proxy),
        hint(" ".join(_hints(candidates, start))),
        f'<script type="application/json">{_embedded(data)}</script>',
        f"<script>\n{_script()}\n</script>",
        "</div>",
    )
    return "\n".join(parts)


def no_explorer(why: str) -> str:
    """Return what stands in the place of the explorer where steps have no closed form."""
    return hint(f"There are no sliders here, because the page could not compute what they would show: {why}.")


def run_explorer(run: Run, comparison: Comparison) -> str:
    """Return the explorer of a run: each of its schemes at its own density, from one seed."""
    start = own_point(run)
    if isinstance(start, str):
        return no_explorer(start)
    return explorer_html(
        run_candidates(run),
        metric=comparison.metric,
        higher_is_better=comparison.higher_is_better,
        target=comparison.target,
        start=start,
        proxy=comparison.proxy,
    )


def _script() -> str:
    """Return the scripts as one, which leaves nothing behind on the page."""
    return "\n".join(['(() => {\n"use strict";', *map(resource, _SCRIPTS), "})();"])


def _embedded(data: object) -> str:
    """Return data as JSON that cannot end the element that it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _quantity(slider: _Slider) -> str:
    """Return a slider with a field beside it into which an exact value can be typed."""
    name, label = f"explorer-{slider.name}", escape(slider.label)
    low = slider.low - _STEP if slider.zero else slider.low
    zero = " data-zero" if slider.zero else ""
    return (
        f'<div class="control"><label for="{name}">{label}</label>'
        f'<input id="{name}-exact" type="text" class="exact" autocomplete="off" spellcheck="false" '
        f'aria-label="{label}, exactly" aria-describedby="{name}-fault">'
        f'<input id="{name}" type="range" min="{low:g}" max="{slider.high:g}" step="{_STEP:g}"{zero}>'
        f'<p id="{name}-fault" class="fault" role="alert"></p></div>'
    )


def _positions(label: str, values: Sequence[float]) -> list[str]:
    """Return a slider over the values that there are; one value alone is text, and none is nothing."""
    if not values:
        return []
    if len(values) == 1:
        return [f'<p class="control"><span>{label}</span><output class="exact">{values[0]}</output></p>']
    name = f"explorer-{label}"
    marks = "".join(f'<option value="{place}"></option>' for place in range(len(values)))
    slider = (
        f'<div class="control"><label for="{name}">{label}</label>'
        f'<output id="{name}-value" class="exact" for="{name}"></output>'
        f'<input id="{name}" type="range" min="0" max="{len(values) - 1}" step="1" list="{name}-marks">'
        f'<datalist id="{name}-marks">{marks}</datalist></div>'
    )
    return [slider]


def _figure(metric: str, proxy: str | None) -> str:
    title = f"Validation {metric} against virtual time{_proxy(proxy)}"
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{escape(title)}"></svg>'
        '<ul class="legend"></ul></figure>'
    )


def _table(metric: str, target: float | None, proxy: str | None) -> str:
    of_target = ["time to target", "speed-up", "steps to target"]
    titles = [*([] if target is None else of_target), f"final test {metric}", "step", "step speed-up", *PHASES]
    heads = heading("scheme") + "".join(heading(title, "number") for title in titles)
    label = escape(f"Schemes where the sliders are{_proxy(proxy)}")
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n<table class="sortable">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody></tbody>\n</table>\n</div>"
    )


def _proxy(proxy: str | None) -> str:
    return f" ({proxy})" if proxy else ""


def _hints(candidates: Sequence[Candidate], start: Point) -> Iterable[str]:
    """Say what the numbers rest on."""
    launch = format_seconds(start.launch_s) if start.launch_s else "nothing"
    yield (
        "Computed in this page, by the closed form that times the run. Speed-ups are over the best uncompressed "
        "scheme. The bandwidth is what payload gets of a link; the cost is a factor on all of encoding and decoding; "
        f"launching a collective costs {launch} everywhere."
    )
    seeds = max((len(one.curves) for one in candidates), default=0)
    if seeds > 1:
        yield f"Curves and numbers are means over {seeds} seeds; times to the target count where every seed reached it."
    if any(len(one.variants) > 1 for one in candidates):
        yield "Where a scheme was timed in several ways, such as bucket sizes, the fastest counts."
    plans = (plan for one in candidates for plans in one.variants for plan in plans)
    if any(costs.choices for plan in plans for costs in plan.costs):
        yield "Algorithms that are chosen automatically are those of the cluster as it is, wherever the sliders are."
