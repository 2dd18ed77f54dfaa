"""Watches: who wants to know when a driver encodes, exchanges and decodes; by default nobody does."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from .wirelog import Collective


class Watch(Protocol):
    """Is told what goes on between a message's gradients and their mean, as it happens.

    What lies between :meth:`begin`, the collectives and :meth:`end` of a message is encoding, work between rounds and
    decoding. One thread calls all of them; :meth:`ready` may come from another.
    """

    def ready(self, message: int) -> None:
        """Take note that the gradients of a message are all there."""

    def begin(self, message: int) -> None:
        """Take note that a message is to be encoded."""

    def launched(self) -> AbstractContextManager[object]:
        """Return a context in which one operation of ``torch.distributed`` runs, from its launch to its landing."""

    def exchanged(self, collectives: Sequence[Collective]) -> None:
        """Take note of what the operations since the last call are in the wire log: as many, or fewer."""

    def end(self, message: int) -> None:
        """Take note that a message's means are there."""
