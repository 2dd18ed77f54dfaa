"""The pictures of a sweep: maps over two axes, curves over one, frontiers and phases at a point; they only draw arrays.

Every figure takes a sweep's dataset with its seeds, or one in which means and confidence limits stand in place of them.
"""

from .curves import along_axis, over_workers
from .figures import sweep_figures
from .frontiers import frontier, phases_at_point
from .maps import speedup_map, winner_map

__all__ = ["along_axis", "frontier", "over_workers", "phases_at_point", "speedup_map", "sweep_figures", "winner_map"]
