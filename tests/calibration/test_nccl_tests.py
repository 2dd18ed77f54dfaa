"""nccl-tests: outputs as its programs print them, from older and newer versions, one or several in a file."""

import pytest

from gradwire.analysis.calibration.nccl_tests import bus_factor, read_nccl_tests
from gradwire.compressors.errors import InputError

HEAD = """# nThread 1 nGpus 4 minBytes 1048576 maxBytes 4194304 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
#
# Using devices
"""
RANKS = "".join(f"#  Rank  {i} Group  0 Pid   1000 on       node device  {i} [0x0{i}] NVIDIA A100\n" for i in range(4))
COLUMNS = """#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
FOOT = """# Out of bounds values : 0 OK
# Avg bus bandwidth    : 57.3719
#
"""
NUMBERS = {  # size: two times in us
    1048576: (51.40, 50.00),
    4194304: (77.32, 80.00),
}


def rows(factor, middle, unit=1.0, wrong="0"):
    """Return rows as they are printed, with bandwidths to two digits."""
    lines = []
    for size, times in NUMBERS.items():
        blocks = []
        for time in times:
            algorithm = size / time / 1e3
            blocks.append(f"{time * unit:7.5g} {algorithm:7.2f} {algorithm * factor:7.2f} {wrong:>6}")
        lines.append(f"{size:12d} {size // 4:12d} {middle} {' '.join(blocks)}")
    return "\n".join(lines) + "\n"


def output(program, factor, middle, **options):
    name = f"# Collective test starting: {program}\n" if program else ""
    return name + HEAD + RANKS + COLUMNS + rows(factor, middle, **options) + FOOT


SUMS = output("all_reduce_perf", 1.5, "float sum -1")


@pytest.fixture
def read(tmp_path):
    def reading(text):
        path = tmp_path / "log.txt"
        path.write_text(text)
        return read_nccl_tests(path)

    return reading


def test_rows_become_records_with_both_times(read):
    first, second = read(output("all_reduce_perf", 1.5, "float     sum      -1"))
    assert (first.operation, first.workers, first.bytes) == ("all-reduce", 4, 1048576)
    assert first.seconds == pytest.approx((51.40e-6, 50e-6))
    assert second.seconds == pytest.approx((77.32e-6, 80e-6))
    assert first.source == "nccl-tests: log.txt"


@pytest.mark.parametrize(
    ("program", "factor", "middle", "operation", "share"),
    [
        ("all_gather_perf", 0.75, "float    none      -1", "all-gather", 4),
        ("reduce_scatter_perf", 0.75, "bfloat16     sum      -1", "reduce-scatter", 1),
        ("broadcast_perf", 1.0, "half    none       0", "broadcast", 1),
        ("alltoall_perf", 0.75, "float    none      -1", "all-to-all", 1),
    ],
)
def test_sizes_are_what_a_worker_hands_over(read, program, factor, middle, operation, share):
    """An all-gather's size is printed as what is received: that of all ranks together."""
    found = read(output(program, factor, middle, wrong="N/A"))
    assert [(r.operation, r.bytes) for r in found] == [(operation, size // share) for size in NUMBERS]


def test_several_outputs_in_a_file_are_told_apart_and_tags_of_mpirun_do_not_matter(read):
    text = output("all_reduce_perf", 1.5, "float sum -1") + output("all_gather_perf", 0.75, "float none -1")
    tagged = "".join(f"[1,0]<stdout>: {line}\n" for line in text.splitlines())
    expected = [("all-reduce", 1048576), ("all-reduce", 4194304), ("all-gather", 262144), ("all-gather", 1048576)]
    assert [(r.operation, r.bytes) for r in read(text)] == expected
    assert [(r.operation, r.bytes) for r in read(tagged)] == expected


def test_older_outputs_do_not_name_their_program_and_may_be_told_by_what_they_sum(read):
    old = COLUMNS.replace("#wrong", " error").replace("root", "    ")
    text = HEAD + RANKS + old + rows(1.5, "float sum", wrong="4e-07")
    assert {r.operation for r in read(text)} == {"all-reduce"}
    text = HEAD + RANKS + old + rows(0.75, "float sum", wrong="4e-07")
    assert {r.operation for r in read(text)} == {"reduce-scatter"}
    assert {
        r.operation
        for r in read("$ mpirun -np 4 ./build/all_gather_perf -b 8\n" + HEAD + RANKS + old + rows(0.75, "float"))
    } == {"all-gather"}


def test_times_may_be_printed_in_milliseconds(read):
    text = output("all_reduce_perf", 1.5, "float sum -1", unit=1e-3).replace("(us)", "(ms)")
    assert read(text)[0].seconds == pytest.approx((51.40e-6, 50e-6))


def test_factors_of_the_bus_are_those_of_the_documentation():
    assert bus_factor("all-reduce", 8) == 1.75
    assert bus_factor("all-gather", 8) == bus_factor("reduce-scatter", 8) == bus_factor("all-to-all", 8) == 0.875
    assert bus_factor("broadcast", 8) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "log.txt: has no rows of nccl-tests; allowed: the text that such as all_reduce_perf prints"),
        (SUMS.replace("Rank", "rang"), "line 13: the number of ranks is not told"),
        (output("", 0.75, "float none -1"), "line 12: the program is not told; put its name before the output"),
        (
            output("all_gather_perf", 1.5, "float none -1"),
            "line 13: busbw = 30.6 GB/s contradicts algbw = 20.4; all-gather of 4 ranks has 15.30",
        ),
        (output("sendrecv_perf", 1, "float none -1"), "line 1: sendrecv_perf is not read; allowed: all_reduce_perf, "),
        (SUMS.replace("51.4", "x"), "is no row of nccl-tests"),
    ],
    ids=["empty", "no ranks", "no name", "wrong bus", "other program", "garbled"],
)
def test_what_cannot_be_read_is_said_in_one_line(read, text, said):
    with pytest.raises(InputError) as caught:
        read(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="nothing.txt: cannot be read: No such file"):
        read_nccl_tests(tmp_path / "nothing.txt")
