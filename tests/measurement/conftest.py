"""A group of this process alone, for what needs no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gradwire.analysis.measurement.clock import Clock
from gradwire.analysis.measurement.group import Group
from gradwire.analysis.measurement.jobs import Link


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A group of one worker."""
    store = tmp_path_factory.mktemp("alone") / "store"
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=0, world_size=1)
    device = torch.device("cpu")
    yield Group(0, 1, device, Clock(device), Link(), str(Path(__file__).parent))
    dist.destroy_process_group()
