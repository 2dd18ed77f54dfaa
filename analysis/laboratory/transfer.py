"""Rates measured by plain TCP transfers between hosts, from sockets of this process."""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import NamedTuple

from .links import Link
from .namespaces import Namespace

CHUNK_BYTES = 1 << 18
SETTLE_S = 0.25
"""Least time before a rate is measured, for TCP to find its window."""
BURSTS = 2
"""Bursts that pass before a rate is measured; the first of them passes at the speed of memory."""
WAIT_S = 30.0
"""After this time a transfer that does not get going has failed."""


class MeasuredRate(NamedTuple):
    """TCP payload of a transfer from one host to the next, in bit/s: alone, and while every host sends to its next."""

    sender: int
    receiver: int
    alone_bps: float
    together_bps: float


class Transfer:
    """A connection over which as much is sent as passes.

    Parameters
    ----------
    sender, receiver : Namespace
    address : str
        The receiver's.
    """

    def __init__(self, sender: Namespace, receiver: Namespace, address: str) -> None:
        with receiver.call(socket.create_server, (address, 0)) as server:
            self.source = sender.call(socket.create_connection, server.getsockname(), WAIT_S)
            self.sink, _ = server.accept()
        self.source.settimeout(None)
        self.received_bytes = 0

    def send(self) -> None:
        """Send until the connection is closed."""
        chunk = bytes(CHUNK_BYTES)
        with suppress(ConnectionError):
            while True:
                self.source.sendall(chunk)

    def receive(self, begin: threading.Event, end: threading.Event) -> float:
        """Receive until the end, close the connection, and return the rate from the beginning on, in bit/s."""
        buffer = bytearray(CHUNK_BYTES)
        while not begin.is_set():
            self.received_bytes += self.sink.recv_into(buffer)
        self.sink.recv_into(buffer)  # from the arrival of some bytes to that of others
        first, total = time.monotonic(), 0
        while not end.is_set():
            total += self.sink.recv_into(buffer)
        last = time.monotonic()
        self.close()
        return total * 8 / (last - first)

    def close(self) -> None:
        """Close both ends; what has not arrived is dropped."""
        with suppress(OSError):
            self.source.shutdown(socket.SHUT_RDWR)
        self.source.close()
        self.sink.close()


def measure_rates(
    hosts: Sequence[Namespace], addresses: Sequence[str], link: Link | None, seconds: float
) -> list[MeasuredRate]:
    """Measure the transfers from each host to the next, one after another and then all at once."""
    pairs = [(i, (i + 1) % len(hosts)) for i in range(len(hosts))]
    burst = 0 if link is None else link.burst_bytes
    alone = [_rates(hosts, addresses, [pair], burst, seconds)[0] for pair in pairs]
    together = _rates(hosts, addresses, pairs, burst, seconds)
    return [MeasuredRate(*pair, a, t) for pair, a, t in zip(pairs, alone, together, strict=True)]


def _rates(
    hosts: Sequence[Namespace], addresses: Sequence[str], pairs: list[tuple[int, int]], burst: int, seconds: float
) -> list[float]:
    """Measure some transfers at once."""
    begin, end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2 * len(pairs)) as pool, ExitStack() as stack:
        transfers = []
        for i, j in pairs:
            transfers.append(Transfer(hosts[i], hosts[j], addresses[j]))
            stack.callback(transfers[-1].close)
        stack.callback(end.set)
        stack.callback(begin.set)
        for transfer in transfers:
            pool.submit(transfer.send)
        rates = [pool.submit(transfer.receive, begin, end) for transfer in transfers]
        time.sleep(SETTLE_S)
        deadline = time.monotonic() + WAIT_S
        while any(transfer.received_bytes < BURSTS * burst for transfer in transfers):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a transfer between hosts of the laboratory passed no {BURSTS * burst} bytes")
            time.sleep(0.01)
        begin.set()
        time.sleep(seconds)
        end.set()
        return [rate.result() for rate in rates]
