"""nccl-tests: the text that its programs print, read into records.

Understood are ``all_reduce_perf``, ``all_gather_perf``, ``reduce_scatter_perf``, ``broadcast_perf`` and
``alltoall_perf``, one output after the other in a file, of older and newer versions. Each row has times in and out of
place, which count as two repeats. The printed size of an all-gather is that of what is received; records hold what a
worker hands over.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...compressors.errors import InputError
from ...compressors.wirelog import Operation
from ..measurement.records import CollectiveRecord

_OPERATIONS: dict[str, Operation] = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "broadcast": "broadcast",
    "alltoall": "all-to-all",
}
_PROGRAM = re.compile(rf"\b({'|'.join(_OPERATIONS)})_perf\b")
_ANY_PROGRAM = re.compile(r"\b(\w+)_perf\b")
_TAG = re.compile(r"^\[\d+,\d+\]<std(?:out|err)>: ?")
"""What mpirun --tag-output puts before each line."""
_RANK = re.compile(r"#\s*Rank\s+(\d+)\b")
_RANKS = re.compile(r"\bn?ranks:?\s+(\d+)", re.IGNORECASE)
_UNITS = {"(s)": 1.0, "(ms)": 1e-3, "(us)": 1e-6}
_BLOCK = 4
"""Columns of one time: time, algbw, busbw and what went wrong."""


@dataclass
class _Output:
    """What the lines of one program's output have said so far."""

    operation: Operation | None = None
    ranks: set[int] = field(default_factory=set)
    workers: int | None = None
    blocks: int = 0
    unit_s: float = 1e-6
    rows: int = 0

    @property
    def count(self) -> int | None:
        """How many workers took part, if that was said."""
        return self.workers or len(self.ranks) or None


def read_nccl_tests(path: Path) -> list[CollectiveRecord]:
    """Read what nccl-tests printed.

    Raises
    ------
    InputError
        If the file cannot be read or has no rows, the program or the number of ranks cannot be told, or a row
        contradicts itself: its bus bandwidth must be the algorithm's times the factor of the operation.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    records = list(_records(path, text.splitlines()))
    if not records:
        raise InputError(f"{path}: has no rows of nccl-tests; allowed: the text that such as all_reduce_perf prints")
    return records


def _records(path: Path, lines: Sequence[str]) -> Iterator[CollectiveRecord]:
    """Yield a record for each row."""
    output = _Output()
    for number, line in enumerate(lines, start=1):
        plain = _TAG.sub("", line).strip()
        tokens = plain.split()
        if not tokens:
            continue
        if tokens[0].isdigit() and output.blocks:
            output.rows += 1
            yield _record(path, number, tokens, output)
        else:
            output = _read_comment(path, number, plain, output)


def _read_comment(path: Path, number: int, line: str, output: _Output) -> _Output:
    """Take in a line that is no row; return the output it belongs to."""
    named, program = _PROGRAM.search(line), _ANY_PROGRAM.search(line)
    rank = _RANK.match(line)
    begins = program or "nThread" in line or (rank and int(rank[1]) in output.ranks)
    if begins and output.rows:
        output = _Output()
    if named:
        output.operation = _OPERATIONS[named[1]]
    elif program:
        known = ", ".join(f"{name}_perf" for name in _OPERATIONS)
        raise InputError(f"{path}, line {number}: {program[0]} is not read; allowed: {known}")
    if rank:
        output.ranks.add(int(rank[1]))
    elif ranks := _RANKS.search(line):
        output.workers = int(ranks[1])
    words = line.lstrip("# ").split()
    if "algbw" in words:
        output.blocks = words.count("time")
    if line.startswith("#") and "(B)" in words:
        output.unit_s = next((_UNITS[word] for word in words if word in _UNITS), 1e-6)
    return output


def _record(path: Path, number: int, tokens: list[str], output: _Output) -> CollectiveRecord:
    """Turn a row into a record."""
    where = f"{path}, line {number}"
    blocks = [tokens[-_BLOCK * i :][:_BLOCK] for i in range(output.blocks, 0, -1)]
    try:
        size = int(tokens[0])
        numbers = [tuple(float(text) for text in block[:3]) for block in blocks]
    except ValueError as error:
        raise InputError(f"{where}: {' '.join(tokens)!r} is no row of nccl-tests") from error
    if any(len(block) != 3 for block in numbers):
        raise InputError(f"{where}: {' '.join(tokens)!r} is no row of nccl-tests")
    workers = output.count
    if workers is None:
        raise InputError(f"{where}: the number of ranks is not told; keep the lines '# Rank ...' of the output")
    operation = output.operation or _guess(where, tokens, numbers, workers)
    for _, algorithm, bus in numbers:
        _check_bus(where, operation, algorithm, bus, workers)
    handed = size // workers if operation == "all-gather" else size
    seconds = tuple(time * output.unit_s for time, _, _ in numbers)
    return CollectiveRecord(
        operation=operation, workers=workers, bytes=handed, seconds=seconds, source=f"nccl-tests: {path.name}"
    )


def bus_factor(operation: Operation, workers: int) -> float:
    """Return by what nccl-tests multiplies the algorithm's bandwidth to get that of the bus."""
    match operation:
        case "all-reduce":
            return 2 * (workers - 1) / workers
        case "broadcast":
            return 1.0
    return (workers - 1) / workers


def _guess(where: str, tokens: list[str], numbers: Sequence[tuple[float, ...]], workers: int) -> Operation:
    """Return the operation of an output that does not name its program: by whether it sums, and by its factor."""
    sums = any(token in ("sum", "prod", "min", "max", "avg") for token in tokens)
    candidates: tuple[Operation, ...] = ("all-reduce", "reduce-scatter") if sums else ("broadcast", "all-gather")
    algorithm, bus = numbers[0][1:]
    fitting = [one for one in candidates if _agrees(one, algorithm, bus, workers)]
    if len(fitting) != 1 or fitting[0] == "all-gather":  # an all-to-all looks the same
        raise InputError(
            f"{where}: the program is not told; put its name before the output, such as '# all_gather_perf'"
        )
    return fitting[0]


def _agrees(operation: Operation, algorithm: float, bus: float, workers: int) -> bool:
    """Return whether two bandwidths, each printed with two digits after the point, belong together."""
    factor = bus_factor(operation, workers)
    return abs(bus - factor * algorithm) <= 0.0051 * (1 + factor) + 1e-3 * bus


def _check_bus(where: str, operation: Operation, algorithm: float, bus: float, workers: int) -> None:
    if not _agrees(operation, algorithm, bus, workers):
        expected = bus_factor(operation, workers) * algorithm
        raise InputError(
            f"{where}: busbw = {bus:g} GB/s contradicts algbw = {algorithm:g}; {operation} of {workers} ranks has "
            f"{expected:.2f}"
        )
