"""The network: what collectives cost, as schedules of transfers that are played and in closed form."""

from .closed_form import CriticalPath, critical_path
from .collectives import Schedule, Transfer, schedule
from .engine import Network

__all__ = ["CriticalPath", "Network", "Schedule", "Transfer", "critical_path", "schedule"]
