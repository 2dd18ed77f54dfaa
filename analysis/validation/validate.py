"""The validation itself: calibrate, freeze the predictions, measure what was predicted, compare; a folder keeps it all.

What a folder has already is not measured again, so that an interrupted validation goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...compressors.base import Shape
from ...sim.profile import Profile, ProfileError, load_profile
from ..calibration.profile import Evidence, fit_profile
from ..measurement.jobs import Job
from ..measurement.launch import measure
from ..measurement.records import (
    AnyRecord,
    Backend,
    CodecRecord,
    CollectiveRecord,
    ComputeRecord,
    Machine,
    StepRecord,
    read_records,
)
from ..measurement.steps import check_step
from .errors import Compared
from .frozen import Frozen, check_apart
from .grid import Grid, Subject, codec_jobs, collective_jobs, compute_jobs
from .predict import Predicted, predict_step
from .site import Rate, Site

Progress = Callable[[str, int, int, str], None]
"""Called with the part of the validation, the number of its jobs that are done, of all, and what comes next."""
CALIBRATION, PREDICTIONS, MEASURED = "calibration.jsonl", "predictions.json", "measured.jsonl"
RATES = "rates.json"


class Validation(NamedTuple):
    """What came out.

    Attributes
    ----------
    grid : Grid
    machine : Machine
    profiles : dict of link to Profile
        By the link's nominal rate in bit/s; None: as it is.
    rates : tuple of Rate
        Of the shaped links.
    rows : list of Compared
        Those that could be measured.
    failed : list of StepRecord
        The others.
    """

    grid: Grid
    machine: Machine
    profiles: dict[float | None, Profile]
    rates: tuple[Rate, ...]
    rows: list[Compared]
    failed: list[StepRecord]


class Runner:
    """Does the parts of a validation in order.

    Parameters
    ----------
    grid : Grid
    folder : Path
        Made if it is not there.
    site : Site
    backend : {"gloo", "nccl"}
    time_limit_s : float
        Of each single job.
    progress : callable, optional
    search : Path, optional
        A folder in which import paths of tasks and models are looked up first.
    """

    def __init__(
        self,
        grid: Grid,
        folder: Path,
        site: Site,
        backend: Backend = "gloo",
        time_limit_s: float = 600.0,
        progress: Progress | None = None,
        search: Path | None = None,
    ) -> None:
        self._grid, self._folder, self._site = grid, folder, site
        self._backend, self._limit_s, self._progress = backend, time_limit_s, progress
        self._search = search
        self._shapes: dict[str, dict[str, Shape]] = {one.label: one.shapes(search) for one in grid.subjects}

    def run(self, given: Path | None = None) -> Validation:
        """Calibrate, or take a given profile; freeze the predictions; measure; compare.

        Raises
        ------
        InputError
            If a step cannot be taken, the folder holds something else, a given profile lacks something, or a
            configuration was calibrated on.
        MeasurementError
            If a worker fails or hangs.
        """
        for job in self._grid.steps():
            check_step(job, self._grid.workers, self._search)
        self._folder.mkdir(parents=True, exist_ok=True)
        rates = self._rates()
        if given is None:
            profiles = self._calibrate()
        else:
            profiles = {link: with_rate(load_profile(given), rates.get(link)) for link in self._grid.links_bps}
        frozen = self._freeze(profiles)
        for link in self._grid.links_bps:
            self._measure("steps", list(self._grid.steps()), link, MEASURED)
        machine, records = read_records(self._folder / MEASURED)
        rows, failed = compare(frozen.predictions, records)
        return Validation(self._grid, machine, profiles, tuple(rates.values()), rows, failed)

    # ------------------------------------------------------------------------------------------------- calibration

    def _rates(self) -> dict[float | None, Rate]:
        """Measure what plain TCP reaches over each shaped link, once: predictions may rest on it."""
        path = self._folder / RATES
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        found = {rate["nominal_bps"]: Rate(**rate) for rate in kept}
        links = [link for link in self._grid.links_bps if link is not None]
        for link in links:
            if link not in found:
                found[link] = self._site.rate(link)
                path.write_text(json.dumps([rate._asdict() for rate in found.values()], indent=1), encoding="utf-8")
        return {link: found[link] for link in links}

    def _calibrate(self) -> dict[float | None, Profile]:
        """Measure parts, none of which is a training step, and fit a profile for each link."""
        grid = self._grid
        self._measure(
            "computation and codecs", [*compute_jobs(grid), *codec_jobs(grid, self._search)], None, CALIBRATION
        )
        for link in grid.links_bps:
            self._measure("collectives", collective_jobs(grid, self._search), link, CALIBRATION)
        machine, records = read_records(self._folder / CALIBRATION)
        return {link: fit_link(records, machine, link) for link in grid.links_bps}

    def _measure(self, part: str, jobs: Sequence[Job], link: float | None, file: str) -> None:
        """Measure jobs over links of a rate, but for those that the file has."""
        name = part if link is None else f"{part} at {link / 1e6:g} Mbit/s"
        progress = self._progress
        measure(
            jobs,
            self._grid.workers,
            self._folder / file,
            backend=self._backend,
            place=self._site.place,
            link=self._site.shape(link),
            time_limit_s=self._limit_s,
            search=self._search,
            progress=None if progress is None else lambda done, of, label: progress(name, done, of, label),
        )

    # ------------------------------------------------------------------------------------------------- predictions

    def _freeze(self, profiles: dict[float | None, Profile]) -> Frozen:
        """Predict every configuration, and write that down before any of them is measured."""
        predictions: dict[str, Predicted] = {}
        for link, profile in profiles.items():
            as_shaped = self._site.link(link)
            for job in self._grid.steps():
                subject = Subject(task=job.task, options=job.options, batch_size=job.batch_size)
                key = job.blank(self._grid.workers, as_shaped).key
                predictions[key] = predict_step(job, self._shapes[subject.label], self._grid.workers, profile)
        calibration = self._folder / CALIBRATION
        check_apart(read_records(calibration)[1] if calibration.exists() else [], predictions)
        frozen = Frozen.of(predictions, profiles.values())
        frozen.freeze(self._folder / PREDICTIONS)
        return frozen


def fit_link(records: Sequence[AnyRecord], machine: Machine, link: float | None) -> Profile:
    """Return the profile of a machine whose links have a rate.

    The terms of collectives are fitted to those that were measured at this rate, each after a rest: what a token bucket
    lets pass at once is in them.
    """
    own: list[AnyRecord] = [r for r in records if isinstance(r, ComputeRecord | CodecRecord)]
    plain = {"link_bps": None, "burst_bytes": None}
    own += [r.model_copy(update=plain) for r in records if isinstance(r, CollectiveRecord) and r.link_bps == link]
    profile, _ = fit_profile([Evidence(own, "measured", machine)])
    return profile


def with_rate(profile: Profile, rate: Rate | None) -> Profile:
    """Return a profile whose cluster is behind shapers of a measured rate, if there is one.

    Raises
    ------
    InputError
        If the profile has no cluster.
    """
    if profile.cluster is None:
        raise ProfileError("the profile has no cluster; calibrate collectives too")
    if rate is None:
        return profile
    return profile.model_copy(update={"cluster": profile.cluster.model_copy(update={"shaper": rate.shaper})})


def compare(predictions: dict[str, Predicted], records: Sequence[AnyRecord]) -> tuple[list[Compared], list[StepRecord]]:
    """Hold measured steps against their predictions; those that failed are returned apart."""
    steps = [r for r in records if isinstance(r, StepRecord) and r.key in predictions]
    rows = [Compared(step, predictions[step.key]) for step in steps if step.error is None]
    return rows, [step for step in steps if step.error is not None]
