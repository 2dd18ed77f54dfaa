"""A thread beside the backward pass, which does what it is given in order."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch


class Background:
    """Does jobs one after the other; it starts with the first and never keeps a process alive.

    On a device with streams, a job's kernels run on a stream of its own, after all that the caller has launched so far.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._streams: dict[torch.device, Any] = {}

    def do(self, job: Callable[[], None], device: torch.device) -> None:
        """Queue a job, which must not raise."""
        ready = None
        if device.type != "cpu":
            ready = torch.get_device_module(device).current_stream(device).record_event()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="gradwire", daemon=True)
            self._thread.start()
        self._jobs.put(lambda: self._do(job, device, ready))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _do(self, job: Callable[[], None], device: torch.device, ready: Any) -> None:
        with nullcontext() if ready is None else self._after(ready, device):
            job()

    def _after(self, ready: Any, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context in which kernels run on the own stream, which waits for an event."""
        module = torch.get_device_module(device)
        if device not in self._streams:
            self._streams[device] = module.Stream(device)
        self._streams[device].wait_event(ready)
        context: AbstractContextManager[Any] = module.stream(self._streams[device])
        return context

    def close(self) -> None:
        """Finish what was queued and end the thread; another job would start another."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
