"""Schedules: which scheme runs at which step, what it remembers over a change, and what the log says of it."""

import copy
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from gradwire.compressors.base import Codec, Protocol, SchemeError, State, Turn
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember
from gradwire.compressors.schedule import ScheduledCodec, ScheduledProtocol
from gradwire.compressors.spec import parse_scheme


def turn(step: int) -> Turn:
    return Turn(1, step, "u", (0, 1), 2)


def entries_sent(text, exchange, values, steps: int, size: int = 1000) -> list[int]:
    """Return how many entries of a worker are sent at each step."""
    state, counts = None, []
    for step in range(steps):
        outcome, _ = exchange(text, values(2, size, seed=step), state, step)
        state = outcome.state
        counts.append(int(outcome.sent.dense(outcome.mean)[0].count_nonzero()))
    return counts


# ------------------------------------------------------------------------------------------------------------ warm-up


@pytest.mark.parametrize("text", ["warmup(topk(density=0.01), start=0.25, steps=4)", "warmup(topk, steps=4)"])
def test_density_falls_exponentially_to_its_own_value(text, exchange, values):
    ratio = 0.01 / 0.25
    expected = [math.ceil(1000 * 0.25 * ratio ** (t / 4) - 1e-9) for t in range(5)] + [10, 10]
    assert entries_sent(text, exchange, values, 7) == expected
    assert expected[0] == 250


def test_five_points_of_the_curve_are_those_of_the_papers_epochs():
    scheme = parse_scheme("warmup(topk(density=0.0009765625), start=0.25, steps=4)")
    assert [scheme.at(turn(t)).density for t in range(6)] == pytest.approx(
        [0.25, 0.0625, 0.015625, 0.00390625, 0.0009765625, 0.0009765625]
    )


def test_any_number_can_be_scheduled_and_whole_ones_are_rounded():
    """8 (2/8)^(t/3): 8, 5.04, 3.17, 2."""
    scheme = parse_scheme("warmup(qsgd(bits=2), start=8, steps=3, key=bits)")
    assert [str(scheme.at(turn(t))) for t in range(4)] == [f"qsgd(bits={bits})" for bits in (8, 5, 3, 2)]


def test_a_number_of_either_part_of_a_composition_can_be_scheduled():
    density = parse_scheme("warmup(topk(density=0.01) | qsgd(bits=2), start=1, steps=2)")
    bits = parse_scheme("warmup(topk(density=0.01) | qsgd(bits=2), start=8, steps=2, key=bits)")
    assert [str(density.at(turn(t))) for t in (0, 1, 2)] == [
        f"topk(density={d}) | qsgd(bits=2)" for d in (1, 0.1, 0.01)
    ]
    assert [str(bits.at(turn(t))) for t in (0, 1, 2)] == [f"topk(density=0.01) | qsgd(bits={b})" for b in (8, 4, 2)]


def test_formulas_tell_the_last_scheme():
    scheme, final = parse_scheme("ef(warmup(topk(density=0.01)))"), parse_scheme("ef(topk(density=0.01))")
    shape = (30, 40)
    assert scheme.wire_bytes(shape) == final.wire_bytes(shape)
    assert scheme.error_bound(shape) == final.error_bound(shape)
    assert scheme.passes(shape) == final.passes(shape)
    assert scheme.parts() == final.parts()
    assert scheme.shaped_parts(shape) == final.shaped_parts(shape)


def test_the_log_says_what_ran(exchange, values):
    text = "ef(warmup(topk(density=0.01), start=1, steps=2))"
    logs = [exchange(text, values(2, 1000), None, step)[1] for step in range(4)]
    ran = [log.work[0].scheme for log in logs]
    assert ran == [f"ef(topk(density={d}))" for d in (1, 0.1, 0.01, 0.01)]
    for log in logs:
        assert log.collectives[0].sent_bytes[0] == parse_scheme(log.work[0].scheme).wire_bytes((1000,))


def test_residual_survives_every_change(exchange, values):
    """Nothing is lost over a warm-up and over phases: sum of means + residual = sum of inputs."""
    for text in (
        "ef(warmup(topk(density=0.02), start=0.5, steps=6))",
        "ef(phases(dense, topk(density=0.5), randomk(density=0.1), powersgd(rank=1), at=(3, 6, 9)))",
    ):
        state, means, total = None, 0.0, 0.0
        for step in range(15):
            x = values(2, 10, 20, seed=step, dtype=torch.float64)
            outcome, _ = exchange(text, x, state, step)
            state = outcome.state
            means, total = means + outcome.mean.reshape(-1), total + x.reshape(2, -1).mean(0)
        torch.testing.assert_close(means + state.elements["residual"].mean(0), total, rtol=0, atol=1e-12)
        assert state.elements["residual"].any()


# ------------------------------------------------------------------------------------------------------------- phases


def test_phases_follow_each_other(exchange, values):
    text = "phases(topk(density=0.5), topk(density=0.1), topk(density=0.01), at=(2, 5))"
    assert isinstance(parse_scheme(text), ScheduledCodec)
    assert entries_sent(text, exchange, values, 7) == [500, 500, 100, 100, 100, 10, 10]


def test_a_phase_is_bit_for_bit_the_scheme_alone(exchange, values):
    text = "phases(dense, powersgd(rank=2), qsgd(bits=3), at=(1, 3))"
    assert isinstance(parse_scheme(text), ScheduledProtocol)
    state, alone = None, None
    for step in range(5):
        x = values(2, 12, 10, seed=step)
        outcome, log = exchange(text, x, state, step)
        state = outcome.state
        name = ("dense", "powersgd(rank=2)", "powersgd(rank=2)", "qsgd(bits=3)", "qsgd(bits=3)")[step]
        alone = alone if step == 2 else None
        single, own = exchange(name, x, alone, step)
        alone = single.state
        assert torch.equal(outcome.mean, single.mean)
        assert log == own


def test_a_phase_keeps_its_state_while_it_waits_and_over_a_checkpoint(exchange, values):
    """PowerSGD's Q is the same whether it starts at once or waits; afterwards it is one state with its own prefix."""
    text = "phases(powersgd(rank=2), dense, at=2)"
    scheme = parse_scheme(text)
    state = None
    for step in range(2):
        state = exchange(text, values(2, 12, 10, seed=step), state, step)[0].state
    before = copy.deepcopy(state)
    again = State.from_dict(State.join([state.take(slice(0, 1)), state.take(slice(1, 2))]).state_dict())
    after, _ = exchange(text, values(2, 12, 10, seed=2), again, 2)
    assert after.state.shared.keys() == before.shared.keys()
    assert all(
        torch.equal(torch.as_tensor(after.state.shared[key]), torch.as_tensor(before.shared[key]))
        for key in before.shared
    )
    alone = parse_scheme("powersgd(rank=2)").init((12, 10), 2, torch.zeros(()))
    assert {f"0: {key}" for key in alone.shared} == set(scheme.init((12, 10), 2, torch.zeros(())).shared)


def test_schedules_nest_and_count_from_the_start(exchange, values):
    text = "phases(topk(density=0.5), warmup(topk(density=0.01), start=1, steps=4), at=2)"
    assert str(parse_scheme(text)) == text
    assert entries_sent(text, exchange, values, 6) == [500, 500, 100, math.ceil(1000 * 0.01**0.75), 10, 10]


def test_what_is_true_of_each_phase_is_true_of_all():
    mixed = parse_scheme("phases(dense, qsgd(bits=8), topk, at=(3, 5))")
    assert not mixed.unbiased
    assert not mixed.selects
    assert parse_scheme("phases(dense, topk, at=3)").selects
    assert parse_scheme("phases(dense, qsgd(bits=8), at=3)").unbiased
    assert isinstance(mixed, Protocol)
    assert isinstance(parse_scheme("phases(dense, randomk, at=3)"), Codec)
    assert [str(scheme) for scheme in parse_scheme("ef(phases(dense, topk, at=3))").ever()] == [
        "ef(dense(dtype=native))",
        "ef(topk(density=0.01))",
    ]


def test_error_feedback_asks_about_every_phase():
    scheme = remember(ErrorFeedback(), parse_scheme("phases(qsgd(bits=2), topk, at=100)"))
    with pytest.raises(SchemeError, match=r"ef\(qsgd\(bits=2\)\): on a unit of shape \(10000,\)"):
        scheme.init((10_000,), 2, torch.zeros(()))
    falling = parse_scheme("ef(warmup(qsgd(bits=8), start=2, steps=5, key=bits))")
    with pytest.raises(SchemeError, match=r"the error of qsgd\(bits=2\)"):
        falling.init((10_000,), 2, torch.zeros(()))


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("warmup()", r"warmup goes around one scheme, as in warmup\(topk\(density=0.001\)\)"),
        ("warmup(topk, topk)", r"warmup goes around one scheme"),
        ("warmup(topk, start=0)", r"warmup: start = 0 is out of range: start must be above 0"),
        ("warmup(topk, start=2)", r"topk: density = 2.* is out of range: density must be in \(0, 1\]"),
        ("warmup(topk, steps=0)", r"warmup: steps = 0 is out of range: steps must be at least 1"),
        ("warmup(dense)", r"warmup: dense\(dtype=native\) has no parameter 'density' that is a positive number"),
        ("warmup(dense, key=dtype)", r"no parameter 'dtype' that is a positive number"),
        ("warmup(randomk, key=scaled)", r"no parameter 'scaled' that is a positive number"),
        ("warmup(ef(topk))", r"warmup: write the memory of ef\(topk\(density=0.01\)\) around warmup\(\.\.\.\), not in"),
        ("warmup(powersgd(rank=1), start=4, key=rank)", r"powersgd\(rank=1\) remembers Q: .*, so its rank must stay"),
        ("phases(dense, ef(topk), at=3)", r"phases: write the memory of ef\(topk"),
        ("warmup(layers(topk, below=3))", r"warmup: layers\(.*\) chooses by layer; write warmup inside it"),
        ("phases(dense, topk)", r"phases: 2 schemes need 1 ascending steps above 0 .* but at = \(\)"),
        ("phases(dense, topk, at=0)", r"phases: 2 schemes need 1 ascending steps above 0 .* but at = \(0,\)"),
        ("phases(dense, topk, topk, at=(5, 5))", r"phases: 3 schemes need 2 ascending steps"),
        ("phases(dense, topk, at=(5, 6))", r"phases: 2 schemes need 1 ascending steps"),
        ("phases(dense, topk, at='5')", r"phases: at = '5' is not allowed: at must be a whole number, or several"),
        ("phases(dense, topk, at=(True,))", r"phases: at = \(True,\) is not allowed"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(SchemeError, match=reason):
        parse_scheme(text)


def test_schemes_of_different_laws_do_not_follow_each_other():
    class Votes(type(parse_scheme("dense"))):
        @property
        def law(self):
            return "vote"

    phases = parse_scheme("phases(dense, topk, at=3)")
    with pytest.raises(SchemeError, match="do not leave the same kind of mean"):
        phases.schedule.wrap((parse_scheme("topk"), Votes()))


def test_densities_of_the_curve_are_used_exactly(exchange, values):
    """The log's text names the density, from which the number of entries follows."""
    outcome, log = exchange("warmup(topk(density=0.01), start=0.3, steps=7)", values(2, 997), None, 3)
    density = parse_scheme(log.work[0].scheme).density
    assert density == pytest.approx(0.3 * (0.01 / 0.3) ** (3 / 7))
    assert outcome.sent.dense(outcome.mean)[0].count_nonzero() == math.ceil(Fraction(str(density)) * 997)
    assert replace(parse_scheme("topk"), density=density) == parse_scheme(log.work[0].scheme)
