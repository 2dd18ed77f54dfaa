"""The network: what collectives cost, as schedules of transfers that are played and in closed form."""

from .closed_form import (
    ClosedFormError,
    CriticalPath,
    all_reduce_path,
    all_reduce_seconds,
    critical_path,
    hierarchical_paths,
    parameter_server_path,
    ring_across_hosts,
)
from .collectives import ALGORITHMS, Moves, Schedule, Transfer, parameter_server, schedule
from .engine import Network
from .tuning import Choice, Machine, choose

__all__ = [
    "ALGORITHMS",
    "Choice",
    "ClosedFormError",
    "CriticalPath",
    "Machine",
    "Moves",
    "Network",
    "Schedule",
    "Transfer",
    "all_reduce_path",
    "all_reduce_seconds",
    "choose",
    "critical_path",
    "hierarchical_paths",
    "parameter_server",
    "parameter_server_path",
    "ring_across_hosts",
    "schedule",
]
