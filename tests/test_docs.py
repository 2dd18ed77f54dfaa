"""The documentation runs: every block of code in README.md and docs/ is executed, and what it shows is compared.

- ``python`` blocks of a page share a namespace; ``sh`` blocks run in bash with this environment's commands. Both run in
  a temporary folder of the page's own. A ``text`` block right after one of them is its output; a line ``...`` in it
  stands for any lines.
- A block with a ``title`` is written to the file of that name; ``toml`` without one must be readable.
- A comment on the line before a block changes its treatment: see ``COMMENTS``.

With ``GRADWIRE_UPDATE_DOCS=1`` in the environment the outputs in the pages are rewritten instead of compared.
"""

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import BaseModel
from typer.testing import CliRunner

import gradwire
from gradwire.cli import app
from gradwire.compressors.registry import SCHEMES
from gradwire.sim.cluster import sections
from gradwire.sim.experiment import Experiment
from gradwire.sim.step.measured import MeasuredCodec
from gradwire.sim.step.workload import LayerTimes, WorkloadTimes
from gradwire.sim.training.plan import Schedule

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SLOW = {
    "docs/tutorial/first-comparison.md",
    "docs/guides/advice.md",
    "docs/guides/measure.md",
    "docs/guides/run-folder.md",
    "docs/guides/scaling.md",
    "docs/guides/sweeps.md",
    "docs/guides/theory.md",
    "docs/guides/validate.md",
    "docs/background/how-often.md",
}
"""Pages whose blocks take more than ten seconds; those on theory take as long together."""
UPDATE = bool(os.environ.get("GRADWIRE_UPDATE_DOCS"))

BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*) -->\n)?^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INSTALLS = "installs: not run by the tests"
STATUS_2 = "ends with status 2"
NUMBERS_VARY = "numbers may differ in the last digits between machines"
COMMENTS = {"sh": {INSTALLS, STATUS_2}, "text": {NUMBERS_VARY}}
"""What may stand before a block: it is not run, it must fail, its output is compared without its numbers."""


class Block(NamedTuple):
    """A fenced block of a page; ``span`` is where its content stands in the page's text."""

    language: str
    comment: str
    title: str
    code: str
    line: int
    start: int
    span: tuple[int, int]
    end: int


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        part = match.groupdict(default="")
        found.append(
            Block(
                part["language"],
                part["comment"],
                part["title"],
                part["code"],
                line,
                match.start(),
                match.span("code"),
                match.end(),
            )
        )
    return found


def outputs(text: str, all_blocks: list[Block]) -> dict[int, Block]:
    """Return, by the line of an executed block, the text block that follows it with nothing between."""
    return {
        block.line: following
        for block, following in pairwise(all_blocks)
        if block.language in ("python", "sh")
        and not block.title
        and following.language == "text"
        and not text[block.end : following.start].strip()
    }


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------- running the pages


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trajectory store for all pages, so that what several of them run is trained once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def page_folder(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be in an empty folder, from which modules can be imported; leave no trace in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWIRE_STORE", str(store))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # models this small gain nothing from more
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules, schemes, threads = set(sys.modules), dict(SCHEMES), torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    for module in set(sys.modules) - modules:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]
    SCHEMES.clear()
    SCHEMES.update(schemes)


def marked(page: Path) -> Any:
    slow = name(page) in SLOW or name(page).startswith("docs/background/theory/")
    return pytest.param(page, id=name(page), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_page_runs(page: Path, page_folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    shown = outputs(text, found)
    namespace: dict[str, Any] = {"__name__": "page"}
    updates: list[tuple[Block, str]] = []
    for block in found:
        if block.title:
            path = page_folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            continue
        if block.comment == INSTALLS or block.language not in ("python", "sh"):
            if block.language == "toml":
                tomllib.loads(block.code)
            continue
        printed = run_python(block, page, namespace) if block.language == "python" else run_shell(block, page)
        if block.line in shown:
            expected = shown[block.line]
            if UPDATE:
                updates.append((expected, printed))
            else:
                compare(printed, expected, page)
    if UPDATE:
        page.write_text(updated(text, updates), encoding="utf-8")


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    """Execute a block; line numbers in a traceback are the page's."""
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def run_shell(block: Block, page: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    expected = 2 if block.comment == STATUS_2 else 0
    assert done.returncode == expected, f"{name(page)}:{block.line}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def compare(printed: str, expected: Block, page: Path) -> None:
    vary = expected.comment == NUMBERS_VARY
    parts = [re.escape(plain(part, vary)) for part in re.split(r"^\.\.\.$", expected.code, flags=re.MULTILINE)]
    pattern = r"(?:\n|^)(?:.*\n)*?".join(parts)
    assert re.fullmatch(pattern, plain(printed, vary)), (
        f"{name(page)}:{expected.line} shows\n{expected.code}\nbut what is printed is\n{printed}"
    )


def plain(text: str, vary: bool) -> str:
    """Return a text without blanks at the ends of lines and of the text; on request with all numbers alike."""
    text = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    if vary:
        text = re.sub(r"\d[\d,]*(\.\d+)?(e[+-]\d+)?", "0", text)
        text = re.sub(r"the same \(0|0 points (higher|lower) \(0", "about the same (0", text)
        text = re.sub(r"─+", "─", re.sub(r"[ \t]+", " ", text))
    return text


def updated(text: str, updates: list[tuple[Block, str]]) -> str:
    """Return a page with new outputs; those that leave lines out are kept."""
    for block, printed in reversed(updates):
        if not re.search(r"^\.\.\.$", block.code, re.MULTILINE):
            start, end = block.span
            text = f"{text[:start]}{plain(printed, vary=False)}\n{text[end:]}"
    return text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_has_no_block_that_escapes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(found), "a fence that is not understood"
    assert {block.language for block in found} <= {"python", "sh", "toml", "text"}
    for block in found:
        assert not block.comment or block.comment in COMMENTS.get(block.language, ()), f"line {block.line}"
        if block.comment == INSTALLS:
            assert "pip install" in block.code, f"line {block.line}: only what installs is not run"


# ------------------------------------------------------------------------------------- what pages say of the code


def table(text: str, after: str) -> list[list[str]]:
    """Return the cells of the first Markdown table behind a heading, the titles first, code marks left out."""
    lines = text[text.index(f"{after}\n") :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        rows.append([cell.replace("`", "").replace("\\|", "|").strip() for cell in cells])
    return [rows[0], *rows[2:]]


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "sweep",
        "time",
        "advise",
        "measure",
        "calibrate",
        "theory scheme",
        "theory run",
        "theory suite",
        "validate",
        "validate published",
        "ls",
        "cp",
        "show",
    ],
)
def test_command_page_has_the_words_of_the_help(command: str) -> None:
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    outcome = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    said = words(outcome.output.partition("Keys of an experiment file")[0])
    rows = table(page, f"## `gradwire {command}`")[1:]
    options = {row[0].split()[0] for row in rows if row[0].startswith("--")}
    assert options | {"--help"} == set(re.findall(r"--[a-z-]+", said))
    for given, meaning in rows:
        assert words(meaning) in said, f"{command} {given}: {meaning!r} is not what --help says:\n{said}"


def words(text: str) -> str:
    """Return a text's words, without the lines of boxes."""
    return " ".join(re.sub(r"[─-╿]", " ", text).split())


SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": Experiment,
    **{
        f"`[{key}]`": field.annotation
        for key, field in Experiment.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    },
    "`[[training.schedule]]`": Schedule,
    "`[cluster.intra]`": sections.Intra,
    "`[[cluster.host]]`": sections.Host,
    "`[cluster.fabric]`": sections.Fabric,
    "`[[cluster.links]]`": sections.Link,
    "`[[cluster.routes]]`": sections.Route,
    "`[[cluster.pieces]]`": sections.Piece,
    "`[cluster.shaper]`": sections.Shaper,
    "`[[cluster.measured]]`": sections.MeasuredRange,
    "`[[cluster.background]]`": sections.Background,
    "`[[cluster.profile]]`": sections.Profile,
    "`[cluster.price]`": sections.Price,
    "`[[overhead.codecs]]`": MeasuredCodec,
    "`[workload.times]`": WorkloadTimes,
    "`[[workload.times.layers]]`": LayerTimes,
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_experiment_page_has_every_key_with_its_default(heading: str) -> None:
    model = SECTIONS[heading]
    page = (DOCS / "reference" / "experiment.md").read_text(encoding="utf-8")
    keys = [key for key in model.model_fields if model is not Experiment or f"`[{key}]`" not in SECTIONS]
    rows = table(page, f"## {heading}")[1:]
    written = {model.model_fields[key].alias or key: key for key in keys}
    assert {row[0]: row[2] for row in rows} == {name: default(model, key) for name, key in written.items()}
    for key, meaning, *_ in rows:
        described = model.model_fields[written[key]].description
        assert described is None or words(described) == words(meaning), f"{heading} {key}"


def default(model: type[BaseModel], key: str) -> str:
    """Return a key's default as a file would give it."""
    field = model.model_fields[key]
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return "-"
    if value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if key in ("bucket", "first_bucket", "buckets"):
        written = model.model_construct(**{key: value}).model_dump(mode="json", include={key})[key]
        return written if isinstance(written, str) else ", ".join(written)
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("kind", ["schemes", "clusters", "devices", "models", "experiments", "sweeps"])
def test_list_page_has_what_is_listed(kind: str) -> None:
    """Column by column, for cells of the command's table go over several lines."""
    page = (DOCS / "reference" / "lists.md").read_text(encoding="utf-8")
    titles, *rows = table(page, f"## `gradwire ls {kind}`")
    listed = columns(CliRunner().invoke(app, ["ls", kind]).output)
    for i, title in enumerate(titles):
        assert " ".join(row[i] for row in rows).split() == listed[title], title


def columns(printed: str) -> dict[str, list[str]]:
    """Return the words of each column of a printed table, by its title."""
    head, _, *lines = [line for line in printed.splitlines() if line.strip()]
    titles = [(match.start(), match.group()) for match in re.finditer(r"\S+(?: \S+)*", head)]
    ends = [start for start, _ in titles[1:]] + [max(map(len, lines))]
    return {
        title: " ".join(line[start:end] for line in lines).split()
        for (start, title), end in zip(titles, ends, strict=True)
    }


@pytest.mark.usefixtures("page_folder")
def test_readme_shows_what_the_main_job_prints() -> None:
    """All columns that do not depend on what is learnt, from a run of a few steps."""
    changes = ["--set", "training.steps=4", "--set", "training.evaluate_every=2"]
    outcome = CliRunner().invoke(app, ["run", *changes])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = next(b.code for b in blocks(readme) if b.language == "text" and "encode" in b.code)
    assert costs(shown) == costs(outcome.output)
    assert len(costs(shown)) == 5


def costs(printed: str) -> dict[str, list[str]]:
    """Return, by scheme, bytes, compute, encode + decode, exposed communication and step."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if re.match(r"\s+\w+\(", line))
    return {row[0]: row[1:6] for row in rows}


# ------------------------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize(
    "module", [m.name for m in pkgutil.walk_packages(gradwire.__path__, "gradwire.", onerror=lambda _: None)]
)
def test_examples_of_docstrings(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.failed == 0
