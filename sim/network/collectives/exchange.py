"""Exchanges of different data for each pair: the pairwise all-to-all, and the permutation."""

from collections.abc import Sequence

import numpy as np

from ....compressors.errors import InputError
from ..schedule import IntArray
from .moves import Moves, Rounds, bounds


def pairwise(chunks: IntArray) -> Moves:
    """In round k worker i sends its chunk for worker i + k; rounds count from 1."""
    workers = len(chunks)
    rounds = Rounds(workers)
    own = np.arange(workers)
    starts = bounds(chunks.ravel())
    for k in range(1, workers):
        dst = (own + k) % workers
        rounds.add(own, dst, starts[own * workers + dst], chunks[own, dst])
    return rounds.moves()


def permute(sizes: IntArray, peers: Sequence[int]) -> Moves:
    """Every worker sends its payload to its peer, all at once."""
    rounds = Rounds(len(sizes))
    src, dst = permuted(peers)
    rounds.add(src, dst, bounds(sizes)[src], sizes[src])
    return rounds.moves()


def permuted(peers: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return sources and destinations of a permutation, without those who send to nobody or to themselves.

    Raises
    ------
    InputError
        If two workers send to the same one, which would share its link.
    """
    pairs = [(src, dst) for src, dst in enumerate(peers) if dst not in (-1, src)]
    if len({dst for _, dst in pairs}) < len(pairs):
        raise InputError(f"permute: two workers send to the same one: {tuple(peers)}")
    src, dst = np.array(pairs, np.int64).reshape(-1, 2).T
    return src, dst
