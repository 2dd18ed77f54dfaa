"""The terminal's table: its entries, and how it copes with narrow terminals and awkward names."""

import io

import pytest
from rich.console import Console

from gradwire.analysis.comparison import compare
from gradwire.analysis.tables import comparison_table

from .test_analysis_data import BF16, DENSE, TOPK, scheme, synthetic

LONG = "ef(randomk(density=0.01, coordinates=shared), decay=0.9)"


def shown(run, width):
    """Return what a terminal of some width shows, as lines."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(comparison_table(compare(run), width))
    return console.file.getvalue().splitlines()


@pytest.fixture
def run():
    return synthetic(
        {
            DENSE: scheme(),
            BF16: scheme(exposed_s=0.04, sent_bytes=2e6),
            TOPK: scheme(exposed_s=0.002, codec_s=0.003, sent_bytes=61_234),
            "qsgd(bits=2)": scheme(top=0.7),
            LONG: scheme(diverged=36),
        }
    )


def line_of(lines, text):
    return next(line for line in lines if text in line).split()


def test_each_number_stands_in_its_column(run):
    lines = shown(run, 120)
    heads = "scheme a step compute +decode comm. step target target up accuracy"
    assert line_of(lines, "+decode") == heads.split()
    # 14 ms of computing; 0.95 - 0.85 exp(-0.05 n) is above 0.9 from the evaluation at n = 60 on.
    expected = f"{TOPK} 61.2 kB 14.0 ms 3.00 ms 2.00 ms 19.0 ms 60 1.14 s 2.84x 94.0 %"
    assert line_of(lines, TOPK) == expected.split()
    assert line_of(lines, BF16)[-6:] == ["60", "3.24", "s", "1.00x", "94.0", "%"]


def test_what_failed_is_said_in_words(run):
    lines = shown(run, 120)
    assert line_of(lines, "qsgd(bits=2)")[-6:] == ["-", "not", "reached", "-", "69.0", "%"]
    assert line_of(lines, "ef(randomk(density=0.01,")[-5:] == ["-", "not", "reached", "-", "diverged"]
    assert any(line.endswith("at step 37 ") for line in lines)


@pytest.mark.parametrize("width", [160, 120, 100, 80, 60, 50])
def test_it_fits_and_keeps_the_names_whole(run, width):
    lines = shown(run, width)
    assert max(map(len, lines)) <= width
    for name in (DENSE, BF16, TOPK, "qsgd(bits=2)", "coordinates=shared),"):
        assert any(line.split()[:1] == [name] or name in line for line in lines)


def test_narrow_terminals_lose_the_details_first_and_say_so(run):
    full, narrow = "\n".join(shown(run, 120)), "\n".join(shown(run, 80))
    assert "no room" not in full
    assert "compute" in narrow.split("no room for")[1]
    for text in ("1.14 s", "2.84x", "94.0 %", "not reached"):
        assert text in narrow
    assert "14.0 ms" in full
    assert "14.0 ms" not in narrow


def test_no_column_is_lost_at_120_with_common_names():
    run = synthetic({DENSE: scheme(), "ef(randomblock(density=0.01))": scheme(top=0.5), TOPK: scheme(diverged=36)})
    assert "no room" not in "\n".join(shown(run, 120))


def test_an_endless_name_is_folded_and_not_cut():
    name = "x" * 90
    lines = shown(synthetic({name: scheme()}), 80)
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x" * 3) * 3 + line.split()[0].count("x") % 3 for line in lines if "xxx" in line) == 90


def test_names_are_no_markup():
    assert any("[bold]odd[/bold]" in line for line in shown(synthetic({"[bold]odd[/bold]": scheme()}), 120))


def test_without_a_target_the_steps_are_compared():
    run = synthetic({DENSE: scheme(), TOPK: scheme(exposed_s=0.0)}, target=None)
    lines = shown(run, 120)
    assert "target" not in "\n".join(lines)
    assert line_of(lines, TOPK)[-3:] == ["6.71x", "94.0", "%"]


def test_the_caption_names_target_and_baseline(run):
    text = " ".join(" ".join(shown(run, 160)).split())
    assert f"target: validation accuracy 90 %; speed-up over {BF16}." in text
    only_compressed = synthetic({TOPK: scheme()})
    assert "speed-up over" not in " ".join(shown(only_compressed, 160))
