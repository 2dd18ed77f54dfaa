"""The frame of a report: one self-contained page with facts and sections, and the tables and figures that go in."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from math import isfinite
from string import Template
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure


class Section(NamedTuple):
    """A part of a page.

    Attributes
    ----------
    id : str
        Unique on the page.
    heading : str
        Text.
    html : str
        What stands below the heading.
    kind : str
        The class by which it is styled; ``"verdict"`` stands out.
    """

    id: str
    heading: str
    html: str
    kind: str = ""


class Cell(NamedTuple):
    """A number as text, and the value that it is sorted by."""

    text: str
    value: float | None


class TableRow(NamedTuple):
    """A row of a table: a name, a badge behind it or none, numbers, and texts to the right of them."""

    name: str
    cells: Sequence[Cell]
    badge: str = ""
    texts: Sequence[str] = ()


def page(title: str, facts: Mapping[str, object], sections: Sequence[Section], footer: str) -> str:
    """Return one HTML page that loads nothing, over the network or otherwise.

    Parameters
    ----------
    title : str
        Text, as are the facts and the footer.
    facts : mapping
        Terms and what they are, for the head of the page.
    sections : sequence of Section
    footer : str
    """
    return Template(resource("page.html")).substitute(
        title=escape(title),
        style="\n".join(map(resource, ("style.css", "explorer.css"))),
        script=resource("sort.js"),
        facts="\n".join(
            f"<div><dt>{escape(term)}</dt><dd>{escape(str(fact))}</dd></div>" for term, fact in facts.items()
        ),
        sections="\n\n".join(map(_section, sections)),
        footer=escape(footer),
    )


def _section(section: Section) -> str:
    kind = f' class="{section.kind}"' if section.kind else ""
    return (
        f'<section{kind} aria-labelledby="{section.id}">\n<h2 id="{section.id}">{escape(section.heading)}</h2>\n'
        f"{section.html}\n</section>"
    )


def resource(name: str) -> str:
    """Return the text of a file of this room."""
    return (files(__package__) / name).read_text(encoding="utf-8").rstrip("\n")


def verdict_section(verdict: str) -> Section:
    """Return a verdict with what it advises in bold."""
    advice, colon, reason = verdict.partition(": ")
    text = f"<strong>{escape(advice)}{colon}</strong>{escape(reason)}" if colon else escape(advice)
    return Section("verdict", "Does compressing gradients pay off?", f"<p>{text}</p>", "verdict")


def experiment_section(experiment: str) -> Section:
    """Return the file that repeats what was done."""
    text = (
        "<details>\n<summary>The complete experiment file (TOML)</summary>\n"
        f'<pre tabindex="0"><code>{escape(experiment)}</code></pre>\n</details>'
    )
    return Section("experiment", "How to repeat it", text)


def bullets(lines: Sequence[str]) -> str:
    """Return a list of texts."""
    return "\n".join(["<ul>", *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"])


def hint(text: str) -> str:
    """Return a paragraph that stands back."""
    return f'<p class="hint">{escape(text)}</p>'


def table(label: str, titles: Sequence[str], rows: Sequence[TableRow], texts: Sequence[str] = ()) -> str:
    """Return a sortable table.

    Parameters
    ----------
    label : str
        What it shows.
    titles : sequence of str
        One for each column of numbers.
    rows : sequence of TableRow
        With a cell for each title.
    texts : sequence of str
        Titles of columns of text, to the right of the numbers.
    """
    heads = [heading("scheme"), *(heading(title, "number") for title in titles), *map(heading, texts)]
    body = "\n".join(f"<tr>{''.join(_entries(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n<table class="sortable">\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def heading(title: str, kind: str = "text") -> str:
    """Return a column's heading, by which the table can be sorted."""
    return f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{escape(title)}</button></th>'


def _entries(row: TableRow) -> list[str]:
    badge = f' <span class="badge">{escape(row.badge)}</span>' if row.badge else ""
    name = f'<th scope="row">{_name(row.name)}{badge}</th>'
    return [name, *map(_number, row.cells), *(f"<td>{escape(text)}</td>" for text in row.texts)]


def _name(scheme: str) -> str:
    """Return a scheme's name, which a narrow table may break between its parts."""
    return f"<code>{escape(scheme).replace('(', '(<wbr>')}</code>"


def _number(cell: Cell) -> str:
    if cell.value is None or not isfinite(cell.value):
        return f'<td class="number missing">{escape(cell.text)}</td>'
    return f'<td class="number" data-value="{float(cell.value)!r}">{escape(cell.text)}</td>'


def figures(drawn: Sequence[Figure]) -> str:
    """Return figures side by side."""
    return "\n".join(['<div class="figures">', *map(_figure, drawn), "</div>"])


def _figure(figure: Figure) -> str:
    """Return a figure as SVG inside a data URI: sharp at any size, and its ids cannot clash with another figure's."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "gradwire", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    title = escape(figure.axes[0].get_title(loc="left"))
    data = b64encode(buffer.getvalue()).decode("ascii")
    return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'
