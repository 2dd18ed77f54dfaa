"""Executors: where a sweep's trainings and played steps run, in processes of this machine or on a Dask cluster."""

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ...compressors.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CONNECT_S = 10.0
"""A scheduler that does not answer for so long is not there."""


class Executor(Protocol):
    """Runs a function on many items."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, as they are done."""


class Here:
    """Runs one item after the other in this process."""

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        yield from ((item, function(item)) for item in items)


class Pool:
    """Runs items in processes of this machine, each with one thread, so that results do not depend on their number.

    Parameters
    ----------
    processes : int, optional
        By default one a core.
    """

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or os.cpu_count() or 1

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield results as they come; whatever ends this early ends the processes too."""
        if not items:
            return
        before = set(mp.active_children())
        pool = ProcessPoolExecutor(min(self.processes, len(items)), mp.get_context("spawn"), _begin)
        try:
            futures = {pool.submit(function, item): item for item in items}
            for future in as_completed(futures):
                yield futures[future], future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise RuntimeError("a process of the sweep was ended from outside, perhaps for want of memory") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(mp.active_children()) - before:
                process.terminate()


def _begin() -> None:
    """Prepare a process of the pool: one thread, no answer to Ctrl-C, and an end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one_thread() -> None:
    import torch  # noqa: PLC0415 - a process that only starts others need not load it

    torch.set_num_threads(1)


class Dask:
    """Runs items on the workers of a Dask cluster, each with one thread.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    InputError
        If Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InputError("--executor dask: Dask is not installed; pip install 'gradwire[dask]'") from error
        try:
            connect: Any = Client
            self._client: Any = connect(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"--scheduler {address}: no Dask scheduler answers there") from error
        self._address = address
        if not self._client.scheduler_info()["workers"]:
            self._client.close()
            raise InputError(f"--scheduler {address}: the scheduler has no workers")

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        import distributed  # noqa: PLC0415 - an extra

        completed: Any = distributed.as_completed
        futures = {self._client.submit(_Single(function), item, pure=False): item for item in items}
        try:
            for future in completed(list(futures), loop=self._client.loop):
                yield futures[future], future.result()
        except CancelledError as error:
            raise InputError(
                f"--scheduler {self._address}: the cluster was lost; what was trained is stored, and the same command "
                "goes on from there"
            ) from error
        finally:
            with suppress(Exception):  # a scheduler that is gone needs no telling
                self._client.cancel(list(futures), force=True)

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


class _Single:
    """A function that a process runs once at a time, on one thread: torch's random generator is the process's."""

    _turn = threading.Lock()

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, item: Any) -> Any:
        with _Single._turn:
            _one_thread()
            return self.function(item)
