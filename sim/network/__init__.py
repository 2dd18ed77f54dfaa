"""The network: what collectives cost, as schedules of transfers that are played and in closed form."""

from .closed_form import (
    ClosedFormError,
    CriticalPath,
    all_reduce_path,
    all_reduce_seconds,
    critical_path,
    hierarchical_paths,
    parameter_server_path,
)
from .collectives import ALGORITHMS, Moves, Schedule, Transfer, parameter_server, schedule
from .engine import Network

__all__ = [
    "ALGORITHMS",
    "ClosedFormError",
    "CriticalPath",
    "Moves",
    "Network",
    "Schedule",
    "Transfer",
    "all_reduce_path",
    "all_reduce_seconds",
    "critical_path",
    "hierarchical_paths",
    "parameter_server",
    "parameter_server_path",
    "schedule",
]
