"""The stacked driver: every kind of exchange by its definition, fusing, and what the wire log says of it."""

import pytest
import torch
from torch import Tensor

from gradwire.compressors.base import Outcome, Scheme, State, Turn
from gradwire.compressors.decoded import Dense
from gradwire.compressors.drivers import Driver, Item, StackedDriver, WorkerError
from gradwire.compressors.payload import Payload, Ragged
from gradwire.compressors.requests import AllReduce, AllToAll, Broadcast, Gather, Permute, ReduceScatter
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Collective, MessageLog, Work

N = 4
Units = list[tuple[Scheme | str, tuple[int, ...]]]


def items_of(units: Units, values, lr: float = 1.0, seed: int = 0) -> list[Item]:
    """Return units with normal values and fresh states."""
    items = []
    for i, (form, shape) in enumerate(units):
        scheme = parse_scheme(form) if isinstance(form, str) else form
        x = values(N, *shape, seed=seed + i)
        items.append(Item(x, scheme, scheme.init(shape, N, x[0]), Turn(1, 0, f"u{i}", tuple(range(N)), N, lr)))
    return items


def send(units: Units, values, lr: float = 1.0) -> tuple[list[Outcome], MessageLog]:
    return StackedDriver(N).exchange(items_of(units, values, lr), message=3)


# ------------------------------------------------------------------------------------------- every kind of exchange


@pytest.fixture
def every(exchanges, values) -> tuple[Tensor, State, MessageLog]:
    """Return input, replies and log of one unit of three values that asks for everything."""
    (outcome,), log = send([(exchanges.EveryRequest(), (3,))], values)
    return values(N, 3), outcome.state, log


OWN = torch.tensor([[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]], dtype=torch.int32)


def test_all_reduce_sums_in_rank_order(every):
    x, state, _ = every
    assert torch.equal(state.shared["sum 0"], (((x[0] + x[1]) + x[2]) + x[3])[None])
    assert state.shared["sum 1"].tolist() == [[60, 64, 68]]
    assert state.shared["sum 1"].dtype == torch.int32


def test_all_reduce_takes_the_maximum(every):
    x, state, _ = every
    assert state.shared["max 0"].tolist() == [[max(column) for column in x.T.tolist()]]
    assert state.shared["max 1"].tolist() == [[30, 31, 32]]


def test_reduce_scatter_gives_each_worker_the_sum_of_its_chunks(every):
    """Everybody offers the same values for all; and 100 r, 100 r + 1, ... of which worker t gets the 2 from 2 t on."""
    x, state, _ = every
    assert torch.equal(state.rows["scatter 0"], (((x[0] + x[1]) + x[2]) + x[3]).expand(N, -1))
    assert state.rows["scatter 1"].tolist() == [[600 + 8 * t, 600 + 8 * t + 4] for t in range(N)]


def test_gather_gives_everybody_all_rows(every):
    x, state, _ = every
    assert torch.equal(state.shared["gather 0"], x)
    assert torch.equal(state.shared["gather 1"], OWN.to(torch.uint8))


def test_gather_of_rows_of_different_lengths(every):
    """Worker r sends the first r of its values, so worker 0 sends none."""
    x, state, _ = every
    rows = state.shared["ragged 0"]
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    assert [rows[r, 1 : 1 + r].tolist() for r in range(N)] == [x[r, :r].tolist() for r in range(N)]
    assert not rows[:, 4:].any()
    assert torch.equal(state.shared["ragged 1"], OWN)


def test_broadcast_gives_everybody_the_roots_row(every):
    x, state, _ = every
    assert torch.equal(state.shared["broadcast 0"], x[3:])
    assert state.shared["broadcast 1"].tolist() == [[30, 31, 32]]


def test_all_to_all_exchanges_chunks(every):
    x, state, _ = every
    assert torch.equal(state.rows["all-to-all 0"], x.reshape(-1).expand(N, -1))
    expected = [[100 * source + 2 * target + i for source in range(N) for i in (0, 1)] for target in range(N)]
    assert state.rows["all-to-all 1"].tolist() == expected


def test_all_to_all_exchanges_chunks_of_different_lengths(every):
    x, state, _ = every
    numbers, values = state.rows["uneven 0"], state.rows["uneven 2"]
    for target in range(N):
        for source in range(N):
            count, row = (source + 2 * target) % 3, target * N + source
            assert numbers[row, : 1 + count].tolist() == [count] + count * [10 * source + target]
            assert values[row, 0] == (3 if count else 0)
            assert torch.equal(values[row, 1:4], x[source] if count else torch.zeros(3))
    assert torch.equal(state.rows["uneven 1"], state.rows["all-to-all 1"])


def test_an_all_to_all_needs_a_chunk_for_every_worker(exchanges, values):
    ragged = Payload((Ragged.of([torch.ones(1)] * (N + 1)),))
    with pytest.raises(ValueError, match="needs 4 chunks of each, not 5 in total"):
        send([(asking(exchanges, AllToAll(ragged)), (1,))], values)


def test_permute_moves_rows_and_leaves_empty_ones(every):
    """Worker r sends to r + 1, the last to nobody, so nothing comes to worker 0."""
    x, state, _ = every
    fixed, growing = state.rows["shift 0"], state.rows["shift 1"]
    assert fixed[:, 0].tolist() == [0, 3, 3, 3]
    assert torch.equal(fixed[1:, 1:4], x[:3])
    assert growing[:, 0].tolist() == [0, 0, 1, 2]
    assert growing[3, 1:3].tolist() == x[2, :2].tolist()
    assert state.rows["swap 0"][:, 1:4].tolist() == OWN.flip(0).tolist()


UNEVEN = tuple(
    tuple(0 if r == s else (r + 2 * s) % 3 * 2 + 4 + 12 * bool((r + 2 * s) % 3) for s in range(N)) for r in range(N)
)
"""From worker r to worker s: some numbers of 2 bytes, two more of 2 bytes, and 3 values of 4 bytes or none."""


def test_every_exchange_is_logged_with_its_bytes(every):
    _, _, log = every
    assert log.message == 3
    assert log.rounds == 10
    assert log.collectives == (
        Collective("all-reduce", 0, "float32", (12,) * 4),
        Collective("all-reduce", 0, "int32", (12,) * 4),
        Collective("all-reduce", 1, "float32", (12,) * 4),
        Collective("all-reduce", 1, "int32", (12,) * 4),
        Collective("reduce-scatter", 2, "float32", (48,) * 4),
        Collective("reduce-scatter", 2, "int32", (32,) * 4),
        Collective("all-gather", 3, "bytes", (8 + 12 + 3,) * 4),
        Collective("all-gather", 4, "bytes", (8,) * 4),  # the length of one ragged buffer
        Collective("all-gather", 4, "bytes", (8 + 12, 8 + 12 + 4, 8 + 12 + 8, 8 + 12 + 12)),
        Collective("broadcast", 5, "bytes", (0, 0, 0, 24), (3,)),
        Collective("all-to-all", 6, "bytes", (48 + 16,) * 4),
        Collective("all-gather", 7, "bytes", (8,) * 4),
        Collective("permute", 7, "bytes", (8 + 12, 8 + 12 + 4, 8 + 12 + 8, 0), (1, 2, 3, -1)),
        Collective("permute", 8, "bytes", (8 + 12,) * 4, (3, 2, 1, 0)),
        Collective("all-to-all", 9, "bytes", (2 * 8 * 4,) * 4),  # the lengths of two ragged buffers for each worker
        Collective("all-to-all", 9, "bytes", tuple(map(sum, UNEVEN)), chunks=UNEVEN),
    )


def test_two_units_that_ask_for_everything_share_each_collective(exchanges, values):
    one, two = (exchanges.EveryRequest(), (3,)), (exchanges.EveryRequest(), (5,))
    outcomes, log = send([one, two], values)
    alone = [StackedDriver(N).exchange([item])[0][0] for item in items_of([one, two], values)]
    for together, apart in zip(outcomes, alone, strict=True):
        parts = {**apart.state.rows, **apart.state.shared}
        for key, value in {**together.state.rows, **together.state.shared}.items():
            assert torch.equal(value, parts[key]), key
    assert len(log.collectives) == 16
    assert log.collectives[0] == Collective("all-reduce", 0, "float32", (32,) * 4)
    assert log.collectives[6] == Collective("all-gather", 3, "bytes", (8 + 15 + 8 + 23,) * 4)
    assert log.collectives[7] == Collective("all-gather", 4, "bytes", (16,) * 4)
    assert log.collectives[9] == Collective("broadcast", 5, "bytes", (0, 0, 0, 24 + 32), (3,))
    # The last worker keeps its rows to itself: of 3 and of 5 values, and 3 of either.
    assert log.collectives[12] == Collective("permute", 7, "bytes", (48, 56, 64, 0), (1, 2, 3, -1))


# --------------------------------------------------------------------------------------------------------------- fusing


@pytest.mark.parametrize(
    ("text", "operation", "length"),
    [
        ("dense", "all-reduce", 4 * 12),
        ("topk(density=0.25)", "all-gather", 8 + 4 * 3 + 2),
        ("qsgd", "all-gather", 8 + 4 + 6),
    ],
)
def test_120_tensors_are_one_collective(text, operation, length, values):
    _, log = send([(text, (3, 4))] * 120, values)
    (collective,) = log.collectives
    assert collective.operation == operation
    assert collective.sent_bytes == (120 * length,) * N
    assert log.work == (Work(str(parse_scheme(text)), (3, 4), 120),)


def test_a_mixed_message_makes_the_fewest_collectives_in_order_of_first_appearance(values):
    units: Units = [
        ("topk(density=0.5)", (8,)),
        ("powersgd(rank=1)", (6, 5)),
        ("dense", (10,)),
        ("qsgd(bits=4)", (8,)),
        ("powersgd(rank=1)", (7,)),
        ("powersgd(rank=1)", (6, 5)),
        ("dense(dtype=bf16)", (10,)),
    ]
    outcomes, log = send(units, values)
    assert log.collectives == (
        Collective("all-gather", 0, "bytes", ((8 + 16 + 2) + (8 + 4 + 4),) * 4),
        Collective("all-reduce", 0, "float32", (4 * (6 + 10 + 7 + 6),) * 4),
        Collective("all-reduce", 0, "bfloat16", (20,) * 4),
        Collective("all-reduce", 1, "float32", (4 * (5 + 5),) * 4),
    )
    assert log.work == (
        Work("topk(density=0.5)", (8,), 1),
        Work("powersgd(rank=1)", (6, 5), 2),
        Work("dense(dtype=native)", (10,), 1),
        Work("qsgd(bits=4)", (8,), 1),
        Work("powersgd(rank=1)", (7,), 1),
        Work("dense(dtype=bf16)", (10,), 1),
    )
    for together, item in zip(outcomes, items_of(units, values), strict=True):
        (alone,), _ = StackedDriver(N).exchange([item])
        assert torch.equal(together.mean, alone.mean)
        assert torch.equal(together.sent.dense(item.x[0].reshape(-1)), alone.sent.dense(item.x[0].reshape(-1)))


def test_units_of_a_message_draw_from_their_own_streams(values):
    """Two units with the same values and the same scheme select different entries, for they have different names."""
    scheme, x = parse_scheme("randomk(density=0.1)"), values(N, 1000)
    items = [Item(x, scheme, State(), Turn(1, 0, name, tuple(range(N)), N)) for name in ("a", "b")]
    (one, two), _ = StackedDriver(N).exchange(items)
    assert not torch.equal(one.mean != 0, two.mean != 0)


def asking(exchanges, *requests):
    """Return a protocol that makes these requests."""

    class Asks(exchanges.EveryRequest):
        def rounds(self, x, state, turn):
            for request in requests:
                reply = yield request
                assert reply.buffers
            return Outcome(torch.zeros(x.shape[1:]), Dense(torch.zeros(N, x[0].numel())), State())

    return Asks()


def test_a_sum_and_a_maximum_are_not_fused(exchanges, values):
    rows = Payload((torch.ones(N, 2),))
    units: Units = [
        (asking(exchanges, AllReduce(rows)), (1,)),
        (asking(exchanges, AllReduce(rows, op="max")), (1,)),
        (asking(exchanges, AllReduce(rows)), (1,)),
    ]
    _, log = send(units, values)
    assert [(c.operation, c.sent_bytes[0]) for c in log.collectives] == [("all-reduce", 16), ("all-reduce", 8)]


def test_different_permutations_are_not_fused(exchanges, values):
    rows = Payload((torch.ones(N, 2),))
    ring, back, pairs = (1, 2, 3, 0), (3, 0, 1, 2), (1, 0, -1, -1)
    units: Units = [(asking(exchanges, Permute(rows, to)), (1,)) for to in (ring, back, ring, pairs)]
    _, log = send(units, values)
    assert [(c.peers, c.sent_bytes) for c in log.collectives] == [
        (ring, (32,) * 4),
        (back, (16,) * 4),
        (pairs, (16, 16, 0, 0)),
    ]


def test_units_that_need_fewer_rounds_finish_first(exchanges, values):
    rows = Payload((torch.ones(N, 1),))
    units: Units = [
        (asking(exchanges, Gather(rows), AllReduce(rows), AllReduce(rows)), (1,)),
        (asking(exchanges), (1,)),
        (asking(exchanges, AllReduce(rows)), (1,)),
    ]
    outcomes, log = send(units, values)
    assert len(outcomes) == 3
    assert [(c.operation, c.round) for c in log.collectives] == [
        ("all-gather", 0),
        ("all-reduce", 0),
        ("all-reduce", 1),
        ("all-reduce", 2),
    ]


@pytest.mark.parametrize(
    "request_of",
    [AllReduce, lambda rows: AllReduce(rows, op="max"), ReduceScatter, lambda rows: Broadcast(rows, root=1)],
    ids=["sum", "max", "reduce-scatter", "broadcast"],
)
def test_rows_of_different_lengths_can_only_be_moved(request_of, exchanges, values):
    ragged = Payload((Ragged.of([torch.ones(r) for r in range(N)]),))
    with pytest.raises(TypeError, match="same length on every worker"):
        send([(asking(exchanges, request_of(ragged)), (1,))], values)


# ----------------------------------------------------------------------------------------------------- nothing to send


def test_an_idle_message_launches_nothing(values):
    outcomes, log = send([("ef(topk(density=0.5))", (6,)), ("ef(powersgd(rank=1))", (5, 4))], values, lr=0.0)
    assert log.collectives == ()
    assert log.rounds == 0
    assert [outcome.mean.tolist() for outcome in outcomes] == [[0.0] * 6, [[0.0] * 4] * 5]


def test_idle_units_of_a_message_are_not_charged(values):
    frozen, moving = items_of([("ef(topk(density=0.5))", (6,)), ("ef(topk(density=0.5))", (6,))], values)
    frozen = frozen._replace(turn=Turn(1, 0, "u", tuple(range(N)), N, lr=0.0))
    (still, moved), log = StackedDriver(N).exchange([frozen, moving])
    assert [c.sent_bytes for c in log.collectives] == [(8 + 12 + 2,) * 4]
    assert not still.mean.any()
    assert moved.mean.any()


def test_a_message_of_nothing():
    outcomes, log = StackedDriver(N).exchange([])
    assert outcomes == []
    assert log == MessageLog(0, (), ())


def test_what_is_no_scheme_is_refused(values):
    item = Item(values(N, 2), object(), State(), Turn(0, 0, "u", (0, 1, 2, 3), N))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="neither a codec nor a protocol"):
        StackedDriver(N).exchange([item])


@pytest.mark.parametrize("text", ["dense", "topk(density=0.5)", "powersgd(rank=1)", "qsgd", "randomblock(density=0.5)"])
def test_one_worker_alone_gets_what_it_sent(text, exchange, values):
    outcome, _ = exchange(text, values(1, 6, 5))
    flat = outcome.mean.reshape(-1)
    assert torch.equal(flat, outcome.sent.dense(flat)[0])


def test_a_driver_knows_its_workers():
    driver: Driver = StackedDriver(3)
    assert driver.size == 3
    assert driver.ranks == (0, 1, 2)


class OneOfTwo(StackedDriver):
    """Worker 0 of two, beside a worker 1 that tells a code."""

    def __init__(self, other: int) -> None:
        super().__init__(1)
        self.size, self.other, self.told = 2, other, None

    def _agree(self, first_bad, clean, device):
        self.told = first_bad[0]
        return [first_bad[0], self.other], []


@pytest.fixture
def fails(exchanges):
    """A scheme that cannot encode."""

    class Fails(exchanges.EveryRequest):
        def rounds(self, x, state, turn):
            raise RuntimeError("no memory is left")
            yield

    return Fails()


@pytest.mark.parametrize("other", [2, 0, -1])
def test_regression_a_failure_on_one_worker_is_told_to_the_others(other, fails):
    """Whatever the other one has met, this one's own failure is what it raises, after it has told."""
    driver = OneOfTwo(other)
    with pytest.raises(RuntimeError, match="no memory is left"):
        driver.exchange([Item(torch.ones(1, 3), fails, State(), Turn(0, 5, "u", (0,), 2))])
    assert driver.told == -1


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_another_workers_failure_is_raised_by_name(value):
    scheme = parse_scheme("dense")
    x = torch.full((1, 3), value)
    with pytest.raises(WorkerError, match="^step 5: worker 1 failed to encode; its own error says why$"):
        OneOfTwo(-1).exchange([Item(x, scheme, State(), Turn(0, 5, "u", (0,), 2))])
