"""A calibration as people read it: the fitted terms, and the errors on what was held out."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from ...sim.cluster.cluster import Cluster
from ...sim.profile import Profile
from ...sim.units import format_size
from ..formatting import format_seconds, significant
from .profile import Report


def summary(profile: Profile, report: Report) -> Iterator[str]:
    """Yield lines on what a profile holds."""
    if profile.machine:
        yield f"machine: {', '.join(profile.machine[key] for key in ('cpu', 'devices') if key in profile.machine)}"
    if profile.cluster is not None and profile.cluster.shaper is not None:
        shaper = profile.cluster.shaper
        yield (
            f"shaper: {significant(shaper.rate / 1e6, 4)} Mbit/s of payload, after a rest "
            f"{significant(shaper.burst / 1e3)} kB at once"
        )
    if report.unused:
        yield f"{report.unused} collectives were not used: they found a token bucket neither full nor empty"
    for workload in profile.workloads:
        passes = workload.times.layers
        forward_s, backward_s = (sum(getattr(layer, key) for layer in passes) for key in ("forward", "backward"))
        yield (
            f"{workload.label}: forward {format_seconds(forward_s)}, backward {format_seconds(backward_s)}, "
            f"optimizer {format_seconds(workload.times.optimizer)}"
        )
    for codec in profile.codecs:
        kind = "vectors" if codec.dims == 1 else "matrices"
        sizes = " to ".join(dict.fromkeys(f"{size}" for size in (codec.sizes[0], codec.sizes[-1])))
        densities = f" at {len(codec.densities)} densities" if len(codec.densities) > 1 else ""
        yield f"{codec.scheme}: {kind} of {sizes} values{densities}"


def pieces_table(cluster: Cluster) -> Table:
    """Return a table of a cluster's terms by operation and size."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("collective")
    for title in ("from", "launch", "latency", "bandwidth"):
        table.add_column(title, justify="right", no_wrap=True)
    for operation in dict.fromkeys(piece.operation for piece in cluster.pieces):
        for i, terms in enumerate(cluster.all_terms(operation)):
            rate = cluster.bandwidth * terms.efficiency / 1e9
            cells = (
                format_size(terms.from_bytes),
                format_seconds(terms.launch_s),
                format_seconds(terms.latency_s),
                f"{significant(rate)} Gbit/s",
            )
            table.add_row("" if i else str(operation), *map(Text, cells))
    return table


def errors_table(report: Report) -> Table:
    """Return a table of the relative errors of predictions of what was held out."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption_justify="left")
    table.add_column("held out", overflow="fold")
    for title in ("cases", "median", "95th percentile", "worst"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, errors in report.errors.items():
        shares = (errors.median, errors.p95, errors.worst) if errors.cases else ()
        table.add_row(Text(name), str(errors.cases), *(f"{100 * share:.1f} %" for share in shares))
    table.caption = Text(
        "Relative errors of fits that have not seen what they predict: every third size of a collective in turn, every "
        "inner size and density of a codec."
    )
    return table
