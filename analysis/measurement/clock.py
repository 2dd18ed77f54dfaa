"""The clock: marks in time, of the processor or of a GPU's stream, and the seconds between them."""

from time import perf_counter
from typing import Any

import torch

Mark = Any
"""A moment: seconds of the monotonic clock on a CPU, a ``torch.cuda.Event`` on a GPU."""


class Clock:
    """Marks moments where the work is done.

    On a CPU a mark is the time at which it is made. On a GPU, which works behind the program's back, it is an event on
    the stream in use, which comes to pass when all that was launched there before is done; its time is known after
    :meth:`settle`.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = None if device.type == "cpu" else torch.get_device_module(device)

    def mark(self) -> Mark:
        """Return this moment."""
        if self._module is None:
            return perf_counter()
        event = self._module.Event(enable_timing=True)
        event.record(self._module.current_stream(self._device))
        return event

    def settle(self) -> None:
        """Wait until all that was launched is done, so that every mark has its time."""
        if self._module is not None:
            self._module.synchronize(self._device)

    def seconds(self, start: Mark, stop: Mark) -> float:
        """Return the time from one mark to another; after :meth:`settle`."""
        if self._module is None:
            return float(stop - start)
        return float(start.elapsed_time(stop)) / 1e3
