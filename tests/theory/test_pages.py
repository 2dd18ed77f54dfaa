"""Every statement has a section in the documentation, which says so where it cannot discriminate."""

import re
from collections import Counter
from pathlib import Path

import pytest

from gradwire.analysis.theory.registry import STATEMENTS
from gradwire.analysis.theory.results import alistarh2018, feedback2019, karimireddy2019, stich2018

PAGES = Path(__file__).parents[2] / "docs/background/theory"


def sections(page: Path) -> dict[str, str]:
    """What stands under the headings that are names."""
    parts = re.split(r"^## `(.*)`$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_statement_is_explained_once():
    headings = Counter(name for page in PAGES.glob("*.md") for name in sections(page))
    assert {name: headings[name] for name in STATEMENTS} == dict.fromkeys(STATEMENTS, 1)


@pytest.mark.parametrize("module", [alistarh2018, feedback2019, karimireddy2019, stich2018])
def test_a_section_says_what_a_check_is_about_and_whether_it_can_discriminate(module):
    found = sections(PAGES / f"{module.__name__.split('.')[-1]}.md")
    assert list(found) == [check.statement.name for check in module.CHECKS]
    for check in module.CHECKS:
        told = found[check.statement.name]
        for part in ("*Statement.*", "*Measured.*", "*A violation", "*Can it discriminate?*"):
            assert part in told, (check.statement.name, part)
        assert "*Source.*" in told or "*Proof.*" in told
        assert ("*Can it discriminate?* **No**" in told) == (not check.statement.attained)


def test_the_index_lists_every_statement_as_it_is():
    where = {name: page.name for page in PAGES.glob("*.md") for name in sections(page)}
    rows = [
        f"| [`{name}`]({where[name]}) | {one.title} | {one.source} | {one.grade} | {'yes' if one.attained else 'no'} |"
        for name, one in STATEMENTS.items()
    ]
    index = (PAGES / "index.md").read_text()
    assert index[index.index("| [`") :].split("\n\n")[0].splitlines() == rows
