"""`gradwire time`: predict a step of a listed model, without training."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..analysis.influence import influences
from ..analysis.predictions import Price, facts, heading, phases_table, prediction_data, scaling_data, scaling_table
from ..analysis.scaling import Scaling, read_workers, scale, scaling_figure
from ..analysis.style import check_format, save_figure
from ..compressors.errors import InputError
from ..sim.experiment import set_key
from ..sim.prediction import make_job, predict
from ..sim.step.synthetic import Cache
from .output import (
    check_folder,
    check_price,
    cluster_keys,
    find_price,
    open_console,
    predicting,
    print_line,
    write_json,
)


def time(
    model: Annotated[str, typer.Argument(help="A listed model: see gradwire ls models.")],
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="A listed cluster, or a cluster's TOML file.")
    ] = "ethernet-10g",
    workers: Annotated[int, typer.Option(help="How many workers.")] = 8,
    schemes: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="TEXT", help="Predict this scheme; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="A listed device.")] = "v100",
    batch: Annotated[
        int | None, typer.Option(help="Samples of one worker's batch; by default the model's customary.")
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Also predict these numbers of workers: 2,4,8 or, doubling, 2..1024."),
    ] = None,
    strong: Annotated[
        bool, typer.Option("--strong", help="Scale with the global batch constant, not each worker's.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the run whose cost is asked for.")] = None,
    price: Annotated[
        float | None, typer.Option(help="Of one GPU for one hour; by default the cluster's, if it has one.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the scaling to this file: .png, .svg or .pdf.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in timing.all_reduce=auto; may be repeated."),
    ] = None,
    no_influence: Annotated[
        bool,
        typer.Option("--no-influence", help="Do not change each input to find those without effect: it is faster."),
    ] = False,
) -> None:
    """Predict the step of a listed model on a cluster: phases, throughput, scaling and cost, without training."""
    training = {"workers": workers} | ({} if batch is None else {"batch_size": batch})
    data = {"model": model, "training": training, "cluster": cluster_keys(cluster), "workload": {"device": device}}
    for change in changes or ():
        set_key(data, change)
    if schemes and "scheme" in data:
        raise InputError(f"--set scheme={data['scheme']}: not together with --scheme; give one of them")
    jobs = [make_job({"scheme": scheme, **data}) for scheme in schemes or ["dense"]]
    numbers = _check(scaling, strong, plot, json, price)
    cost = find_price(jobs[0].cluster, price, steps)
    cache = Cache()
    with predicting(len(jobs) * (2 - no_influence + len(numbers))) as advance:
        predictions = [advance(predict(job, cache=cache)) for job in jobs]
        effects = [[] if no_influence else advance(influences(one, cache)) for one in predictions]
        per_hour = None if cost is None else cost.per_gpu_hour
        scaled = scale(jobs, numbers, strong, per_hour, steps, lambda: advance(None)) if numbers else None
    console = open_console()
    print_line(console, heading(predictions[0]))
    console.print(phases_table(predictions, console.width))
    print_line(console, f"compute times: {predictions[0].workload.source}")
    for one, own in zip(predictions, effects, strict=True):
        print_line(console, f"\n{one.job.scheme}")
        for name, text in facts(one, own, cost):
            print_line(console, f"  {name}: {text}")
    _finish(console, scaled, cost, plot)
    if json is not None:
        parts = [prediction_data(one, own, cost) for one, own in zip(predictions, effects, strict=True)]
        write_json(json, {"predictions": parts, "scaling": None if scaled is None else scaling_data(scaled)})


def _check(scaling: str | None, strong: bool, plot: Path | None, json: Path | None, price: float | None) -> list[int]:
    """Refuse options that do not go together or cannot be written; return the numbers of workers to scale to."""
    if scaling is None and (strong or plot is not None):
        raise InputError(f"{'--strong' if strong else '--plot'} needs --scaling, such as --scaling 2..64")
    check_format("--plot", plot)
    check_folder("--plot", plot)
    check_folder("--json", json)
    check_price(price)
    return [] if scaling is None else read_workers(scaling)


def _finish(console: Console, scaled: Scaling | None, cost: Price | None, plot: Path | None) -> None:
    """Show and draw the scaling, if one was asked for."""
    if scaled is None:
        return
    kind = "strong scaling: the global batch is constant" if scaled.strong else "weak scaling: each worker's batch is"
    print_line(console, f"\n{kind}" + ("" if scaled.strong else " constant"))
    console.print(scaling_table(scaled, cost))
    if plot is not None:
        save_figure(scaling_figure(scaled), "--plot", plot)
