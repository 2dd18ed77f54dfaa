"""The report: well-formed, self-contained, escaped, complete and always the same."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from gradwire.analysis.comparison import compare
from gradwire.analysis.report import report_html
from gradwire.analysis.report.explorer import explorer_html, no_explorer
from gradwire.analysis.verdict import verdict

from .explorations import GOAL, START, candidates
from .test_analysis_data import BF16, DENSE, TOPK, scheme, synthetic

VOID = {"meta", "link", "img", "wbr", "br", "input"}
LOADING = {"src", "href", "srcset", "poster", "data", "action", "background", "xlink:href"}


class Page(HTMLParser):
    """Reads a page, insists that every tag is closed where it should be, and keeps what is worth looking at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text, self.ids = [], [], {}, []
        self.tables = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append(["", attrs])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text[self.open[-1] if self.open else ""] = self.text.get(self.open[-1] if self.open else "", "") + data
        if self.tables and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1][0] += data

    def entries(self, table):
        return [[text for text, _ in row] for row in self.tables[table]]


@pytest.fixture
def run():
    return synthetic(
        {
            DENSE: scheme(),
            BF16: scheme(exposed_s=0.04, codec_s=0.0004, sent_bytes=2e6, cost_source="roofline estimate"),
            TOPK: scheme(exposed_s=0.002, codec_s=0.003, sent_bytes=61_234),
            "qsgd(bits=2)": scheme(top=0.7),
            "randomk(density=0.01)": scheme(diverged=36),
        }
    )


def html(run):
    return report_html(run, compare(run))


def test_the_page_is_well_formed(run):
    page = Page(html(run))
    tags = [tag for tag, _ in page.attributes]
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("table") == 2
    assert len(set(page.ids)) == len(page.ids)
    labels = {attrs["aria-labelledby"] for _, attrs in page.attributes if "aria-labelledby" in attrs}
    assert labels == set(page.ids)


def test_the_page_loads_nothing(run):
    text = html(run)
    assert not re.search(r"https?:|url\(|@import|\bfetch\b|XMLHttpRequest", text)
    page = Page(text)
    sources = [value for _, attrs in page.attributes for key, value in attrs.items() if key in LOADING]
    assert len(sources) == 7
    assert all(source.startswith("data:") for source in sources)
    policy = next(attrs["content"] for _, attrs in page.attributes if "http-equiv" in attrs)
    assert policy.split(";")[0] == "default-src 'none'"


def test_images_are_figures_with_a_description(run):
    images = [attrs for tag, attrs in Page(html(run)).attributes if tag == "img"]
    assert [image["alt"] for image in images] == [
        "Validation accuracy against virtual time",
        "Validation accuracy against steps",
        "Loss against virtual time",
        "Loss against steps",
        "What a step consists of",
        "What a worker sends in a step",
    ]
    for image in images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(b64decode(data)).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_verdict_stands_on_top(run):
    text = html(run)
    words = verdict(compare(run))
    assert words.startswith("Compress: ")
    reason = words.removeprefix("Compress: ")
    assert f"<strong>Compress: </strong>{reason}" in text
    assert text.index(reason) < text.index("<table")


def test_the_table_holds_the_comparison_with_sortable_values(run):
    page = Page(html(run))
    heads, *rows = page.entries(0)
    assert heads[0] == "scheme"
    assert heads[-3:] == ["time to target", "speed-up over best uncompressed", "final test accuracy"]
    assert rows[1][0] == f"{BF16} baseline"
    assert rows[2] == [TOPK, "61.2 kB", "14.0 ms", "3.00 ms", "2.00 ms", "19.0 ms", "60", "1.14 s", "2.86x", "94.0 %"]
    assert rows[3][6:] == ["-", "not reached", "-", "69.0 %"]
    assert rows[4][7:] == ["not reached", "-", "diverged at step 37"]
    topk = compare(run).rows[2]
    cells = [attrs for _, attrs in page.tables[0][3]][1:]
    values = [float(attrs["data-value"]) for attrs in cells]
    expected = [topk.sent_bytes, topk.compute_s, topk.codec_s, topk.exposed_communication_s, topk.step_s, 60]
    assert values == [*expected, topk.time_to_target_s, topk.speedup, topk.final_metric]
    assert all("number" in attrs["class"] for attrs in cells)
    assert "data-value" not in page.tables[0][4][7][1]


def test_headings_are_buttons_that_say_how_the_table_is_sorted(run):
    page = Page(html(run))
    heads = [attrs for tag, attrs in page.attributes if tag == "th" and attrs["scope"] == "col"]
    assert len(heads) == len([tag for tag, _ in page.attributes if tag == "button"]) == 20
    assert all(attrs["aria-sort"] == "none" for attrs in heads)


def test_the_phases_have_a_table_with_sources(run):
    heads, *rows = Page(html(run)).entries(1)
    assert heads[-4:] == ["exposed communication", "step", "hidden communication", "source of encode + decode"]
    assert rows[2][1:] == [
        *("4.00 ms", "8.00 ms", "2.25 ms", "750 us", "2.00 ms", "2.00 ms", "19.0 ms", "3.00 ms"),
        "published (V100)",
    ]
    assert rows[0][-1] == "-"
    assert rows[1][-1] == "roofline estimate"


def test_facts_caveats_experiment_and_versions_are_there(run):
    text = html(run)
    for fact in (
        "1,000,000 parameters",
        "ethernet-10g",
        "V100",
        "validation accuracy 90 %",
        "gradwire 0.1.0, torch 2.9.0",
    ):
        assert fact in text
    for note in compare(run).notes:
        assert f"<li>{note}</li>" in text
    assert "randomk(density=0.01) diverged at step 37: loss is nan." in text
    assert Page(text).text["code"].endswith(run.attrs["experiment"])
    assert "<details>" in text


def test_the_title_is_the_experiments_own_or_made_up(run):
    assert Page(html(run)).text["h1"] == "mnist on 8 workers, ethernet-10g"
    run.attrs["title"] = "Digits & co"
    assert Page(html(run)).text["h1"] == "Digits & co"


def test_a_proxy_is_marked_in_the_title(run):
    run.attrs["proxy"] = "bert"
    assert Page(html(run)).text["h1"] == "mnist on 8 workers, ethernet-10g (proxy: trained on mnist, timed as bert)"


def test_the_explorer_stands_between_the_table_and_the_figures(run):
    text = report_html(run, compare(run), no_explorer("hosts & links differ"))
    page = Page(text)
    assert page.ids == ["verdict", "comparison", "explorer", "training", "step", "caveats", "experiment"]
    assert "the page could not compute what they would show: hosts &amp; links differ." in text


def test_a_page_with_an_explorer_is_well_formed_and_loads_nothing(run):
    text = report_html(run, compare(run), explorer_html(candidates(), start=START, **GOAL))
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    for _, attrs in page.attributes:
        names = [attrs[key] for key in ("for", "list", "aria-labelledby", "aria-describedby") if key in attrs]
        assert set(names) <= set(page.ids)
    sources = [value for _, attrs in page.attributes for key, value in attrs.items() if key in LOADING]
    assert all(source.startswith("data:") for source in sources)


def test_hostile_texts_are_escaped():
    evil = "<script>alert('x')</script>\"&$title${style}"
    run = synthetic({DENSE: scheme(), evil: scheme(top=0.5, codec_s=0.001, cost_source=evil)}, title=evil)
    run.attrs |= dict.fromkeys(("task", "cluster", "device", "experiment", "gradwire", "torch", "metric"), evil)
    text = html(run)
    assert "<script>alert" not in text
    page = Page(text)
    assert [tag for tag, _ in page.attributes].count("script") == 1
    assert page.text["h1"] == evil
    assert page.entries(0)[2][0] == evil
    assert evil in verdict(compare(run))
    assert page.text["code"].endswith(evil)


def test_a_run_without_target_baseline_or_survivors_has_a_report():
    run = synthetic({TOPK: scheme(diverged=0)}, target=None)
    page = Page(html(run))
    assert page.entries(0)[1] == [TOPK, *["-"] * 6, "diverged at step 1"]
    assert "span" not in page.text
    assert "Cannot say" in page.text["strong"]


def test_the_page_is_the_same_for_the_same_run(run):
    assert html(run) == html(run.copy(deep=True))


def test_numbers_read_from_a_file_are_as_good_as_pythons_own(run):
    expected = html(run)
    run.attrs |= {name: np.int64(run.attrs[name]) for name in ("workers", "parameters", "higher_is_better")}
    run.attrs["target"] = np.float64(0.9)
    for name in ("scheme", "status", "cost_source"):
        run[name] = run[name].astype(object)
    assert html(run) == expected
