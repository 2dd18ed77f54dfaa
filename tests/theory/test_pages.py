"""Every statement has a section in the documentation, which says so where it cannot discriminate."""

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

from gradwire.analysis.theory import results
from gradwire.analysis.theory.check import Statement
from gradwire.analysis.theory.registry import STATEMENTS

PAGES = Path(__file__).parents[2] / "docs/background/theory"
PARTS = ("*Statement.*", "*Assumptions.*", "*Measured.*", "*A violation means*", "*Can it discriminate?*")


def sections(page: Path) -> dict[str, str]:
    """What stands under the headings that are names."""
    parts = re.split(r"^## `(.*)`$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_statement_is_explained_once():
    headings = Counter(name for page in PAGES.glob("*.md") for name in sections(page))
    assert {name: headings[name] for name in STATEMENTS} == dict.fromkeys(STATEMENTS, 1)


def checked() -> dict[str, list[Statement]]:
    """The statements of every module that has checks, by its name."""
    found = {}
    for one in pkgutil.iter_modules(results.__path__):
        module = importlib.import_module(f"{results.__name__}.{one.name}")
        checks = (*getattr(module, "CHECKS", ()), *getattr(module, "OPERATOR_CHECKS", ()))
        if checks:
            found[one.name] = [check.statement for check in checks]
    return found


CHECKED = checked()


def test_no_statement_is_left_out():
    assert Counter(one.name for statements in CHECKED.values() for one in statements) == Counter(list(STATEMENTS))


@pytest.mark.parametrize("name", CHECKED)
def test_a_section_says_what_a_check_is_about_and_whether_it_can_discriminate(name):
    found = sections(PAGES / f"{name}.md")
    assert list(found) == [one.name for one in CHECKED[name]]
    for one in CHECKED[name]:
        told = found[one.name]
        assert {part: told.count(part) for part in PARTS} == dict.fromkeys(PARTS, 1), one.name
        assert "*Source.*" in told or "*Proof.*" in told, one.name
        assert ("*Can it discriminate?* **No**" in told) == (not one.attained), one.name


def test_the_index_lists_every_statement_as_it_is():
    where = {name: page.name for page in PAGES.glob("*.md") for name in sections(page)}
    rows = [
        f"| [`{name}`]({where[name]}) | {one.title} | {one.source} | {one.grade} | {'yes' if one.attained else 'no'} |"
        for name, one in STATEMENTS.items()
    ]
    index = (PAGES / "index.md").read_text()
    assert index[index.index("| [`") :].split("\n\n")[0].splitlines() == rows
