"""Traces: the first steps of several runs as Chrome trace events, which Perfetto and chrome://tracing open."""

from collections.abc import Mapping
from typing import Any

from .graph import Resource
from .timeline import Span, Timeline


def chrome_trace(runs: Mapping[str, Timeline], steps: int = 3) -> dict[str, Any]:
    """Return a trace in the Trace Event Format.

    Parameters
    ----------
    runs : mapping of str to Timeline
        Each becomes a process of this name, with a thread for each resource of each worker that its spans show.
    steps : int
        How many steps of each run to show, from the first.

    Returns
    -------
    dict
        Ready for ``json.dump``. Times are microseconds.

    References
    ----------
    .. [1] *Trace Event Format*, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    events: list[dict[str, Any]] = []
    for process, (name, run) in enumerate(runs.items()):
        events.append(_metadata("process_name", process, 0, name))
        shown = [(step, span) for step in range(min(steps, len(run.step_s))) for span in run.spans(step)]
        threads = sorted({(span.worker, span.resource) for _, span in shown})
        events += [
            _metadata("thread_name", process, _thread(*thread), "worker {} {}".format(*thread)) for thread in threads
        ]
        events += [_event(process, step, span) for step, span in shown]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _event(process: int, step: int, span: Span) -> dict[str, Any]:
    """Return a span as a complete event, with its duration."""
    return {
        "name": span.name,
        "cat": span.resource,
        "ph": "X",
        "pid": process,
        "tid": _thread(span.worker, span.resource),
        "ts": span.start_s * 1e6,
        "dur": (span.end_s - span.start_s) * 1e6,
        "args": {"step": step},
    }


def _thread(worker: int, resource: Resource) -> int:
    """Return the number of a thread; a worker's stand together."""
    return 3 * worker + ("compute", "network", "codec").index(resource)


def _metadata(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    """Return the event that names a process or a thread."""
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
