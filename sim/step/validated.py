"""What has been validated: set-ups in which predicted steps were compared with published measurements, as data."""

import tomllib
from functools import lru_cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..cluster import Cluster, load_cluster

_NO_NUMBERS = {"price", "source", "description"}


class Setup(BaseModel):
    """Predictions that were held against measurements.

    Attributes
    ----------
    models : tuple of str
    cluster : str
        A preset.
    workers : tuple of int
        The fewest and the most.
    scheme : str
        Text form.
    overlap : bool
        Whether communication overlapped with the backward pass.
    error : float
        The largest relative difference between a predicted and a measured step.
    source : str
        Who measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] = Field(min_length=1)
    cluster: str
    workers: tuple[int, int]
    scheme: str
    overlap: bool
    error: float = Field(gt=0, lt=1)
    source: str


@lru_cache(maxsize=1)
def validated_setups() -> tuple[Setup, ...]:
    """Return all set-ups."""
    text = (files("gradwire.sim.step") / "presets" / "validated.toml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Setup, ...]).validate_python(tomllib.loads(text)["setup"])


def find_setup(model: str, cluster: Cluster, workers: int) -> Setup | None:
    """Return the set-up that holds this model, cluster and number of workers, if there is one.

    Scheme and overlap are the caller's to compare. The cluster must be the preset in all its numbers.
    """
    for setup in validated_setups():
        fewest, most = setup.workers
        same = model in setup.models and fewest <= workers <= most
        if same and _numbers(cluster) == _numbers(load_cluster(setup.cluster)):
            return setup
    return None


def _numbers(cluster: Cluster) -> dict[str, object]:
    return cluster.model_dump(exclude=_NO_NUMBERS)
