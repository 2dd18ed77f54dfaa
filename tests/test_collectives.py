"""Collectives as schedules: everybody ends with what the operation promises, at the textbook volume."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.sim.network import ALGORITHMS, Schedule, critical_path, parameter_server, schedule
from gradwire.sim.network.collectives import tree

from .collectives_oracle import holdings

PLAIN_ALL_REDUCES = [name for name in ALGORITHMS["all-reduce"] if name != "hierarchical"]
WORKERS = st.integers(1, 11)
SIZES = st.integers(0, 40)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Let the double tree cut what tests can follow byte by byte."""
    monkeypatch.setattr(tree, "MIN_PIECE", 2)


def edges(size: int, parts: int):
    """Where near-even parts begin and end, as numpy cuts an array."""
    return np.cumsum([0] + [len(part) for part in np.array_split(np.empty(size, np.int8), parts)])


def contributions(workers: int, size: int):
    """Each worker's own buffer: its own contribution to every byte, and nobody else's. [worker, byte, contributor]"""
    return np.eye(workers, dtype=int)[:, None, :].repeat(size, axis=1)


def owned(sizes):
    """Blocks one after the other, of which each worker holds its own; 1 + the owner stands for the data."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(owner == np.arange(len(sizes))[:, None], 1 + owner, 0), 1 + owner


def sent_and_received(moves: Schedule, workers: int):
    sent, received = np.zeros((2, workers), int)
    np.add.at(sent, moves.src, moves.bytes)
    np.add.at(received, moves.dst, moves.bytes)
    return sent, received


# ------------------------------------------------------------------------------------------ what everybody ends up with


@pytest.mark.parametrize("algorithm", PLAIN_ALL_REDUCES)
@settings(deadline=None, max_examples=25)
@given(WORKERS, SIZES)
def test_all_reduce_sums_every_contribution_once(algorithm, workers, size):
    moves = schedule("all-reduce", (size,) * workers, (), algorithm)
    if workers > 1 and size:
        assert (holdings(moves, contributions(workers, size)) == 1).all()
    else:
        assert len(moves) == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), SIZES, st.randoms(use_true_random=False))
def test_hierarchical_all_reduce_sums_whatever_the_placement(hosts, local, size, random):
    order = list(range(hosts * local))
    random.shuffle(order)
    groups = [order[i * local : (i + 1) * local] for i in range(hosts)]
    moves = schedule("all-reduce", (size,) * len(order), (), "hierarchical", groups=groups)
    if len(order) > 1 and size:
        assert (holdings(moves, contributions(len(order), size)) == 1).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS["reduce-scatter"])
@settings(deadline=None, max_examples=25)
@given(WORKERS, SIZES)
def test_reduce_scatter_leaves_chunk_i_at_worker_i(algorithm, workers, size):
    if algorithm == "halving":
        workers = 1 << workers.bit_length() - 1
    moves = schedule("reduce-scatter", (size,) * workers, (), algorithm)
    held = holdings(moves, contributions(workers, size))
    at = edges(size, workers)
    if workers > 1:
        assert all((held[i, at[i] : at[i + 1]] == 1).all() for i in range(workers))


@pytest.mark.parametrize("algorithm", ALGORITHMS["all-gather"])
@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=11))
def test_all_gather_brings_every_block_to_everyone(algorithm, sizes):
    initial, everything = owned(sizes)
    assert (holdings(schedule("all-gather", sizes, (), algorithm), initial) == everything).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS["broadcast"])
@settings(deadline=None, max_examples=25)
@given(WORKERS, SIZES, st.integers(0, 10), st.integers(1, 6))
def test_broadcast_brings_the_payload_to_everyone(algorithm, workers, size, root, pieces):
    root %= workers
    initial = np.zeros((workers, size), int)
    initial[root] = 1 + np.arange(size)
    moves = schedule("broadcast", initial.any(axis=1) * size, (root,), algorithm, pieces=pieces)
    assert (holdings(moves, initial) == initial[root]).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS["all-to-all"])
@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.data())
def test_all_to_all_brings_each_its_own_chunks(algorithm, workers, data):
    row = st.lists(st.integers(0, 5), min_size=workers, max_size=workers)
    chunks = np.array([data.draw(row) for _ in range(workers)])
    initial, everything = owned(chunks.sum(axis=1))
    moves = schedule("all-to-all", chunks.sum(axis=1), (), algorithm, chunks=chunks)
    held = holdings(moves, initial)
    receiver = np.repeat(np.tile(np.arange(workers), workers), chunks.ravel())
    assert all((held[j] == everything)[receiver == j].all() for j in range(workers))
    off_diagonal = chunks * (1 - np.eye(workers, dtype=int))
    np.testing.assert_array_equal(
        sent_and_received(moves, workers), [off_diagonal.sum(axis=1), off_diagonal.sum(axis=0)]
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(1, 30), st.integers(1, 5), st.booleans())
def test_servers_sum_all_pushes_and_everyone_pulls_the_sum(workers, size, servers, colocated):
    nodes = range(min(servers, workers)) if colocated else range(workers, workers + servers)
    total = max(workers, *(node + 1 for node in nodes))
    initial = np.zeros((total, size, workers), int)
    initial[:workers] = contributions(workers, size)
    moves = parameter_server((size,) * workers, (size,) * workers, tuple(nodes))
    assert (holdings(moves, initial)[:workers] == 1).all()


def test_servers_take_different_payloads():
    moves = parameter_server((10, 0, 4), (7, 5, 9))
    sent, received = sent_and_received(moves, 4)
    assert sent.tolist() == [10, 0, 4, 21]
    assert received.tolist() == [7, 5, 9, 14]
    assert moves.reduces.tolist() == [True] * 3 + [False] * 7  # three pushes, four joins, three pulls


# ------------------------------------------------------------------------------------------------------------- volumes


@pytest.mark.parametrize("workers", [2, 3, 4, 6, 8, 12, 16])
def test_volumes_are_the_textbook_ones(workers):
    """With pieces that divide evenly; S bytes, N workers, of which E are more than the largest power of two P."""
    size = 10080
    size -= size % (workers << (workers.bit_length() - 1))
    power = 1 << (workers.bit_length() - 1)
    extra = workers - power
    shift = power.bit_length() - 1

    def volume(algorithm: str, operation="all-reduce"):
        return sent_and_received(schedule(operation, (size,) * workers, (), algorithm), workers)

    optimal = 2 * size * (workers - 1) // workers
    for algorithm in ("ring", "direct"):
        assert (np.array(volume(algorithm)) == optimal).all()
        assert (np.array(volume(algorithm, "reduce-scatter")) == optimal // 2).all()
        assert (np.array(volume(algorithm, "all-gather")) == size * (workers - 1)).all()
    assert (np.array(volume("bruck", "all-gather")) == size * (workers - 1)).all()
    folded = np.zeros(workers, int)
    folded[: 2 * extra] = size  # who hands over sends and receives the buffer once; so does who takes it, besides
    idle = np.arange(workers) % 2 + (np.arange(workers) >= 2 * extra) > 0
    assert (np.array(volume("halving-doubling")) == folded + idle * (2 * size * (power - 1) // power)).all()
    assert (np.array(volume("recursive-doubling")) == folded + idle * shift * size).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(1, 9))
def test_the_double_tree_loads_nobody_with_more_than_twice_the_payload(workers, pieces):
    """Every byte enters and leaves each worker at most twice: once a pass for each of two halves."""
    size = 2 * pieces * 100
    moves = schedule("all-reduce", (size,) * workers, (), "double-tree", pieces=pieces)
    sent, received = sent_and_received(moves, workers)
    assert max(sent.max(), received.max()) <= 2 * size
    assert sent.sum() == 2 * (workers - 1) * size
    assert moves.bytes[moves.reduces].sum() == (workers - 1) * size


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["double-tree", "halving-doubling", "recursive-doubling", "ring"]), st.integers(2, 20))
def test_transfers_that_share_a_link_wait_for_each_other(algorithm, workers):
    """So that they never run at once, whatever the links' rates."""
    transfers = schedule("all-reduce", (997,) * workers, (), algorithm).transfers()
    before: list[set[int]] = []
    last: dict[tuple[str, int], int] = {}
    for t, transfer in enumerate(transfers):
        before.append(set(transfer.after).union(*(before[a] for a in transfer.after)))
        for link in (("up", transfer.src), ("down", transfer.dst)):
            assert last.get(link) is None or last[link] in before[t]
            last[link] = t


# ----------------------------------------------------------------------------------------------------- speed, mistakes


@pytest.mark.parametrize(("workers", "limit_s"), [(64, 0.005), (512, 0.1)])
def test_rings_are_built_quickly(workers, limit_s):
    def seconds():
        begin = time.process_time()
        moves = schedule("all-reduce", (10**7,) * workers)
        assert len(moves) == 2 * (workers - 1) * workers
        return time.process_time() - begin

    assert min(seconds() for _ in range(5)) < limit_s


def test_schedules_can_be_played():
    for algorithm in PLAIN_ALL_REDUCES:
        schedule("all-reduce", (997,) * 7, (), algorithm).check()
    parameter_server((5, 6), (7, 8), (0, 3)).check()


@pytest.mark.parametrize(
    ("operation", "algorithm", "more", "line"),
    [
        (
            "all-reduce",
            "doubletree",
            {},
            r"algorithm 'doubletree' of all-reduce is unknown; did you mean double-tree\?",
        ),
        ("all-gather", "xyz", {}, "algorithm 'xyz' of all-gather is unknown; there are ring, bruck, direct"),
        ("all-reduce", "hierarchical", {"groups": [[0, 1], [2]]}, "must be of one size; their sizes are 1 and 2"),
        ("all-reduce", "hierarchical", {}, "must be of one size; their sizes are none"),
        ("all-reduce", "hierarchical", {"groups": [[0], [1], [1]]}, "must hold each worker from 0 to 2 once"),
        ("reduce-scatter", "halving", {}, "needs 2, 4, 8, ... workers; there are 3"),
        ("broadcast", "chain", {"peers": (0,), "pieces": 0}, "pieces = 0 must be at least 1"),
        ("all-to-all", "direct", {"chunks": [[1]]}, "must be 3 x 3 sizes of 0 bytes or more"),
    ],
)
def test_mistakes_are_told_in_one_line(operation, algorithm, more, line):
    with pytest.raises(InputError, match=line):
        schedule(operation, (8, 8, 8), algorithm=algorithm, **more)


@pytest.mark.parametrize("price", [schedule, critical_path], ids=["schedule", "closed form"])
@pytest.mark.parametrize(
    ("operation", "sent", "peers", "line"),
    [
        ("all-reduce", (-5, -5), (), "all-reduce: a worker hands over -5 bytes; allowed: 0 bytes or more"),
        ("all-gather", (5, -1, 3), (), "all-gather: a worker hands over -1 bytes"),
        ("all-reduce", (), (), "all-reduce: there are no workers; allowed: 1 or more"),
        ("gossip", (1, 2), (), "operation 'gossip' is unknown; there are all-reduce, "),
        ("broadcast", (8, 0, 0), (), r"broadcast: peers = \(\) must be the root alone, a worker from 0 to 2"),
        ("broadcast", (8, 0, 0), (3,), r"broadcast: peers = \(3,\) must be the root alone"),
        ("permute", (8, 8, 8), (5, -1, -1), r"permute: peers = \(5, -1, -1\) must tell for each of the 3 workers"),
        ("permute", (8, 8, 8), (-2, -1, -1), "a worker from 0 to 2, or -1"),
        ("permute", (8, 8, 8), (1,), "must tell for each of the 3 workers"),
    ],
)
def test_numbers_that_mean_nothing_are_told_in_one_line(price, operation, sent, peers, line):
    with pytest.raises(InputError, match=line) as caught:
        price(operation, sent, peers)
    assert "\n" not in str(caught.value)


def test_servers_must_be_named_once():
    with pytest.raises(InputError, match=r"servers = \(2, 2\) must name different nodes"):
        parameter_server((1, 1), (1, 1), (2, 2))
    with pytest.raises(InputError, match="2 workers push and 1 pull"):
        parameter_server((1, 1), (1,))
    with pytest.raises(InputError, match="a worker pushes or pulls -1 bytes; allowed: 0 bytes or more"):
        parameter_server((1, 1), (1, -1))
