"""Alistarh, Grubic, Li, Tomioka, Vojnovic 2017 (QSGD): variance, sparsity and code length of the quantizer."""

from collections.abc import Callable
from math import ceil, e, log2, sqrt

import numpy as np
import torch

from ....compressors.base import State, Turn
from ....compressors.payload import Ragged
from ....compressors.quantizers.qsgd import QSGD
from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import UNIT, Probe
from .operators import of_errors, of_vectors, plain, refused

_PAPER = "Alistarh et al. 2017"

ELIAS = 2.5
"""The least c for which Elias's recursive code of every k takes at most 1 + c log2 k bits: that of 4 and of 16."""
_NORM_BITS = 32
_LITTLE_O = 0.1
"""Up to which share of log2 k + 1 what Elias's code of k takes beyond it counts as the o(1) of an asymptotic bound."""
_PADDING_BITS = 7
"""What filling up the last byte of a payload adds at most."""

VARIANCE = Statement(
    name="qsgd.variance",
    title="the variance of s levels",
    source=f"{_PAPER}, Lemma 3.1 (ii)",
    formula="E||Q_s(v) - v||^2 <= min(d / s^2, sqrt(d) / s) ||v||^2, d entries to a bucket",
    kind="expectation",
    grade="stated",
    attained="s = 1, a long flat vector: sqrt(d) - 1 of sqrt(d)",
)

SPARSITY = Statement(
    name="qsgd.sparsity",
    title="how many entries are not zero",
    source=f"{_PAPER}, Lemma 3.1 (iii)",
    formula="E||Q_s(v)||_0 <= s (s + sqrt(n))",
    kind="expectation",
    grade="stated",
    attained="s = 1, a long flat vector: sqrt(n) of 1 + sqrt(n)",
)

SECOND_MOMENT = Statement(
    name="qsgd.second_moment",
    title="the second moment of one level",
    source=f"derived; {_PAPER} bound it by sqrt(n) ||v||^2",
    formula="E||Q_1(v)||^2 = ||v||_1 ||v||_2",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

CODE_LENGTH = Statement(
    name="qsgd.code_length",
    title="the bits of the sparse code, as printed but for its o(1)",
    source=f"{_PAPER}, Theorem 3.2",
    formula="E bits <= (3 + 3/2 log2(2 (s^2 + n) / (s (s + sqrt(n))))) s (s + sqrt(n)) + 32",
    kind="expectation",
    grade="indicative",
    attained="",
)

DENSE_CODE = Statement(
    name="qsgd.dense_code",
    title="the bits of the dense code at s = sqrt(n), as printed, where its o(1) is small",
    source=f"{_PAPER}, Corollary 3.3",
    formula="E bits <= 2.8 n + 32",
    kind="expectation",
    grade="indicative",
    attained="",
)

ELIAS_LENGTH = Statement(
    name="qsgd.elias_length",
    title="the bits of the sparse code with the true lengths of Elias's numbers",
    source=f"derived as {_PAPER}, Theorem 3.2",
    formula="E bits <= 39 + max over N <= min(n, s (s + sqrt(n))) of N (3 + 5/2 log2(n/N) + 5/4 log2(B/N)), "
    "B = s^2 + min(n, s sqrt(n))",
    kind="expectation",
    grade="derived",
    attained="s = 1, a long flat vector",
)

DENSE_ELIAS_LENGTH = Statement(
    name="qsgd.dense_elias_length",
    title="the bits of the dense code with the true lengths of Elias's numbers",
    source=f"derived as {_PAPER}, Corollary 3.3",
    formula="E bits <= 39 + n + min(n, s (s + sqrt(n))) + 5/2 n log2(1 + s / sqrt(n))",
    kind="expectation",
    grade="derived",
    attained="s = sqrt(n), a flat vector: 4 n of 9/2 n",
)


def variance(probe: Probe) -> Finding:
    """Compare the variance for each vector with the lemma's."""
    operator = probe.operator
    conditions = _conditions(probe)
    if refused(conditions) or not isinstance(operator, QSGD):
        return Finding(VARIANCE, probe.subject, conditions, axis="vector")
    s, buckets = operator.levels, [min(operator.bucket, vector.size) for vector in probe.vectors.values()]
    return of_errors(VARIANCE, probe, conditions, np.array([min(d / s**2, sqrt(d) / s) for d in buckets]))


def sparsity(probe: Probe) -> Finding:
    """Compare how many entries are not zero with the lemma's bound."""
    operator = probe.operator
    conditions = (*_conditions(probe), _one_bucket(probe))
    if refused(conditions) or not isinstance(operator, QSGD):
        return Finding(SPARSITY, probe.subject, conditions, axis="vector")
    counts = {name: np.count_nonzero(probe.flat(name)[1], axis=1).astype(np.float64) for name in probe.vectors}
    sizes = _sizes(probe)
    bound = operator.levels * (operator.levels + np.sqrt(sizes))
    return of_vectors(SPARSITY, probe, conditions, counts, bound, sizes)


def second_moment(probe: Probe) -> Finding:
    """Compare the second moment with its closed form, both over ||v||^2."""
    operator = probe.operator
    conditions = (*_conditions(probe), _one_bucket(probe), _one_level(probe))
    if refused(conditions) or not isinstance(operator, QSGD):
        return Finding(SECOND_MOMENT, probe.subject, conditions, axis="vector")
    vectors = [probe.flat(name)[0] for name in probe.vectors]
    bound = np.array([np.abs(v).sum() / np.linalg.norm(v) for v in vectors])
    most = np.array([float(np.count_nonzero(v)) for v in vectors])
    return of_vectors(SECOND_MOMENT, probe, conditions, energies(probe), bound, most)


def code_length(probe: Probe) -> Finding:
    """Compare the payload's bits with the theorem's, less its o(1)."""
    return _code(probe, CODE_LENGTH, "elias", theorem_bits)


def dense_code(probe: Probe) -> Finding:
    """Compare the payload's bits with the corollary's."""
    s = probe.operator.levels if isinstance(probe.operator, QSGD) else 0
    matched = Condition("s = sqrt(n)", all(vector.size == s**2 for vector in probe.vectors.values()))
    vanishes = not refused((*_conditions(probe), _one_bucket(probe), matched)) and _excess(probe, s) <= _LITTLE_O
    o1 = Condition(f"Elias's code takes at most {1 + _LITTLE_O:g} (log2 k + 1) bits: its o(1) is small", vanishes)
    return _code(probe, DENSE_CODE, "elias_dense", lambda n, _: 2.8 * n, matched, o1)


def elias_length(probe: Probe) -> Finding:
    """Compare the payload's bits with the theorem's argument for the code as it is."""
    return _code(probe, ELIAS_LENGTH, "elias", lambda n, s: elias_bits(n, s) + _PADDING_BITS)


def dense_elias_length(probe: Probe) -> Finding:
    """Compare the payload's bits with the corollary's argument for the code as it is."""
    return _code(probe, DENSE_ELIAS_LENGTH, "elias_dense", lambda n, s: dense_elias_bits(n, s) + _PADDING_BITS)


def theorem_bits(n: int, s: int) -> float:
    """Return Theorem 3.2's expected bits of levels, without its o(1) and without the norm."""
    entries = s * (s + sqrt(n))
    return (3 + 1.5 * log2(2 * (s**2 + n) / entries)) * entries


def elias_bits(n: int, s: int) -> float:
    """Return the derived bound of the sparse code's expected bits, without the norm.

    The bound is concave in N, the expected number of entries that are not zero, and so largest at the end of its range
    or where its derivative is zero.
    """
    most, energy = min(n, s * (s + sqrt(n))), s**2 + min(n, s * sqrt(n))

    def bits(count: float) -> float:
        return count * (3 + ELIAS * log2(n / count) + ELIAS / 2 * log2(energy / count))

    # 3 + c log2(n) + c/2 log2(B) = 3/2 c (log2(N) + log2(e))
    steepest = 2.0 ** ((3 + ELIAS * log2(n) + ELIAS / 2 * log2(energy)) / (1.5 * ELIAS)) / e
    return bits(min(most, steepest))


def dense_elias_bits(n: int, s: int) -> float:
    """Return the derived bound of the dense code's expected bits, without the norm."""
    return n + min(n, s * (s + sqrt(n))) + ELIAS * n * log2(1 + s / sqrt(n))


def energies(probe: Probe) -> dict[str, Floats]:
    """Return ||C(x)||^2 / ||x||^2 of every draw, [R] by name; 0 for x = 0."""
    found = {}
    for name in probe.vectors:
        x, drawn = probe.flat(name)
        found[name] = np.square(drawn).sum(axis=1) / (float(np.square(x).sum()) or 1.0)
    return found


def _code(
    probe: Probe, statement: Statement, code: str, bits: Callable[[int, int], float], *more: Condition
) -> Finding:
    """Return a finding about the bits of payloads in one of Elias's codes; ``bits`` of n and s are allowed."""
    operator = probe.operator
    coded = isinstance(operator, QSGD) and operator.code == code
    conditions = (*_conditions(probe), _one_bucket(probe), Condition(f"levels are sent with code={code}", coded), *more)
    if refused(conditions) or not isinstance(operator, QSGD):
        return Finding(statement, probe.subject, conditions, axis="vector")
    measured = {name: _payload_bits(operator, vector, probe) for name, vector in probe.vectors.items()}
    bound = np.array([_NORM_BITS + bits(vector.size, operator.levels) for vector in probe.vectors.values()])
    return of_vectors(statement, probe, conditions, measured, bound)


def _payload_bits(operator: QSGD, vector: Floats, probe: Probe) -> Floats:
    """Return the bits of each draw's payload, whole bytes of levels and 32 bits for the norm; shape [R]."""
    x = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64))[None]
    lengths = []
    for step in range(probe.draws):
        payload, _, _ = operator.encode(x, State(), Turn(probe.seed, step, UNIT, (0,), 1))
        levels = payload.buffers[1]
        assert isinstance(levels, Ragged)
        lengths.append(_NORM_BITS + 8.0 * levels.lengths[0])
    return np.array(lengths)


def _excess(probe: Probe, s: int) -> float:
    """Return how much longer Elias's code of all numbers met, levels + 1, is than log2 k + 1, at worst of a vector."""
    worst = 0.0
    for name in probe.vectors:
        x, drawn = probe.flat(name)
        numbers = np.rint(np.abs(drawn) * s / (np.linalg.norm(x) or 1.0)).astype(np.int64) + 1
        numbers, counts = np.unique(numbers, return_counts=True)
        lengths = np.array([_number_bits(int(number)) for number in numbers])
        worst = max(worst, float(counts @ lengths / (counts @ (np.log2(numbers) + 1)) - 1))
    return worst


def _number_bits(number: int) -> int:
    """Return the length of Elias's recursive code of a number from 1."""
    return 1 if number == 1 else number.bit_length() + _number_bits(number.bit_length() - 1)


def _sizes(probe: Probe) -> Floats:
    return np.array([float(vector.size) for vector in probe.vectors.values()])


def _conditions(probe: Probe) -> tuple[Condition, ...]:
    operator = probe.operator
    euclidean = isinstance(operator, QSGD) and operator.norm == "l2"
    return (*plain(probe), Condition("QSGD with levels of the Euclidean norm", euclidean))


def _one_bucket(probe: Probe) -> Condition:
    operator = probe.operator
    buckets = [ceil(v.size / operator.bucket) if isinstance(operator, QSGD) else 0 for v in probe.vectors.values()]
    return Condition("one bucket for all entries", max(buckets) == 1)


def _one_level(probe: Probe) -> Condition:
    return Condition("one level, s = 1", isinstance(probe.operator, QSGD) and probe.operator.levels == 1)


OPERATOR_CHECKS = (
    Check(VARIANCE, variance),
    Check(SPARSITY, sparsity),
    Check(SECOND_MOMENT, second_moment),
    Check(CODE_LENGTH, code_length),
    Check(DENSE_CODE, dense_code),
    Check(ELIAS_LENGTH, elias_length),
    Check(DENSE_ELIAS_LENGTH, dense_elias_length),
)
