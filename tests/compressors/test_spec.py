"""The text form of schemes: what is read is what is written, and what is refused is refused with a reason."""

import re

import pytest

from gradwire.compressors.base import Codec, Protocol, SchemeError, text_form
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.registry import MEMORIES, SCHEMES
from gradwire.compressors.remember import remember
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.spec import parse_scheme

from .laws import remembers


def test_text_form_of_every_sample_is_read_back(sample):
    assert parse_scheme(str(sample)) == sample
    assert isinstance(sample, Codec) != isinstance(sample, Protocol)
    if remembers(sample):
        return
    wrapped = remember(ErrorFeedback(), sample)
    assert str(wrapped) == f"ef({sample})"
    assert parse_scheme(str(wrapped)) == wrapped
    other = remember(ErrorFeedback(units="gradient"), sample)
    assert str(other) == f"ef({sample}, units=gradient)"
    assert parse_scheme(str(other)) == other
    assert other != wrapped


@pytest.mark.parametrize("name", SCHEMES)
def test_a_bare_name_means_the_defaults(name):
    assert parse_scheme(name) == parse_scheme(f"{name}()") == SCHEMES[name]()


@pytest.mark.parametrize("name", SCHEMES)
def test_examples_are_written_as_they_are_shown(name):
    assert [str(parse_scheme(text)) for text in SCHEMES[name].examples] == list(SCHEMES[name].examples)


def test_names_are_those_of_the_classes():
    assert all(scheme.name == name for name, scheme in SCHEMES.items())
    assert all(memory.name == name for name, memory in MEMORIES.items())
    assert not set(SCHEMES) & set(MEMORIES)


@pytest.mark.parametrize(
    ("text", "scheme", "written"),
    [
        ("topk(density=0.05)", TopK(0.05), "topk(density=0.05)"),
        ("  topk( density = 5e-2 )\n", TopK(0.05), "topk(density=0.05)"),
        ("topk(\n  density=1\n)", TopK(1), "topk(density=1)"),
        ("topk(density=1.0)", TopK(1), "topk(density=1)"),
        ("qsgd(norm=l2)", QSGD(norm="l2"), "qsgd(bits=4, norm=l2)"),
        ("qsgd(norm='l2', bits=4)", QSGD(norm="l2"), "qsgd(bits=4, norm=l2)"),
        ("randomk(scaled=True)", RandomK(scaled=True), "randomk(density=0.01, scaled=True)"),
        ("ef(topk)", remember(ErrorFeedback(), TopK()), "ef(topk(density=0.01))"),
        ("ef(topk, units=update)", remember(ErrorFeedback(), TopK()), "ef(topk(density=0.01))"),
    ],
)
def test_ways_of_writing(text, scheme, written):
    assert parse_scheme(text) == scheme
    assert str(parse_scheme(text)) == written


@pytest.mark.parametrize("first", [1, 1.0])
@pytest.mark.parametrize("cls", [TopK, RandomK])
def test_equal_schemes_have_one_text_whichever_was_written_first(cls, first):
    """The text keys headers, cost models and stored runs; one process may write 1.0 first, another 1."""
    text_form.cache_clear()
    assert str(cls(density=first)) == str(cls(density=1.0)) == f"{cls.name}(density=1)"


UNREADABLE = (
    r"cannot be read: write name\(key=value\), ef\(name\(key=value\)\) or topk\(density=0.01\) \| qsgd\(bits=4\)$"
)
REFUSED = {
    # unknown names
    "topq": r"there is no 'topq'; did you mean topk( or \w+)*\?",
    "ef(randomblok)": r"there is no 'randomblok'; did you mean randomblock",
    "zzz": r"there is no 'zzz'; `gradwire ls schemes` lists what there is$",
    "TOPK": r"there is no 'TOPK'",
    "topk(ratio=0.1)": r"topk has no parameter 'ratio'; there are density",
    "topk(densty=0.1)": r"topk has no parameter 'densty'; did you mean density\?",
    "qsgd(bit=3)": r"qsgd has no parameter 'bit'; did you mean bits\?",
    "ef(topk, unit=update)": r"ef has no parameter 'unit'; did you mean units\?",
    "topk(**{'density': 0.1})": r"topk has no parameter '\*\*'",
    # wrong types
    "topk(density=True)": r"topk: density = True is not allowed: density must be a number",
    "topk(density=low)": r"topk: density = 'low' is not allowed: density must be a number",
    "topk(density='0.1')": r"topk: density = '0.1' is not allowed: density must be a number",
    "topk(density=None)": r"topk: density = None is not allowed: density must be a number",
    "topk(density=[0.1])": r"topk: density = \[0.1\] is not allowed: density must be a number",
    "topk(density=1j)": r"topk: density = 1j is not allowed: density must be a number",
    "qsgd(bits=4.0)": r"qsgd: bits = 4.0 is not allowed: bits must be a whole number",
    "qsgd(bits=True)": r"qsgd: bits = True is not allowed: bits must be a whole number",
    "qsgd(norm=l3)": r"qsgd: norm = 'l3' is not allowed: norm must be one of max, l2",
    "qsgd(norm=[])": r"qsgd: norm = \[\] is not allowed: norm must be one of max, l2",
    "randomk(scaled=1)": r"randomk: scaled = 1 is not allowed: scaled must be True or False",
    "dense(dtype=fp8)": r"dense: dtype = 'fp8' is not allowed: dtype must be one of native, fp32, bf16, fp16",
    "signsgd(0.5)": r"signsgd has no parameters",
    "ef(topk, units=both)": r"ef: units = 'both' is not allowed: units must be one of update, gradient",
    # out of range
    "topk(density=0)": r"topk: density = 0 is out of range: density must be in \(0, 1\]",
    "topk(density=-0.1)": r"topk: density = -0.1 is out of range: density must be in \(0, 1\]",
    "topk(density=1.0001)": r"topk: density = 1.0001 is out of range: density must be in \(0, 1\]",
    "randomk(density=1e999)": r"randomk: density = inf is out of range: density must be in \(0, 1\]",
    "randomblock(density=2)": r"randomblock: density = 2 is out of range: density must be in \(0, 1\]",
    "qsgd(bits=1)": r"qsgd: bits = 1 is out of range: bits must be 2 to 8",
    "qsgd(bits=9)": r"qsgd: bits = 9 is out of range: bits must be 2 to 8",
    "qsgd(bucket=0)": r"qsgd: bucket = 0 is out of range: bucket must be at least 1",
    "powersgd(rank=0)": r"powersgd: rank = 0 is out of range: rank must be at least 1",
    # arguments
    "topk(0.1)": r"write the parameters of topk by name, as in topk\(density=\.\.\.\)",
    "topk(topk)": r"write the parameters of topk by name",
    "topk(density=0.1, density=0.2)": r"topk is given density twice",
    "ef": r"ef goes around one scheme, as in ef\(topk\(density=0.01\)\)",
    "ef()": r"ef goes around one scheme",
    "ef(topk, qsgd)": r"ef goes around one scheme",
    "ef(scheme=topk)": r"ef goes around one scheme",
    "ef(0.1)": UNREADABLE,
    "ef(*topk)": UNREADABLE,
    "ef(ef(topk))": r"ef\(ef\(topk\(density=0.01\)\)\): ef\(topk\(density=0.01\)\) already has this memory",
    # no scheme at all
    "": UNREADABLE,
    "topk(": UNREADABLE,
    "topk(density=)": UNREADABLE,
    "topk; qsgd": UNREADABLE,
    "topk = 3": UNREADABLE,
    "0.1": UNREADABLE,
    "topk.density": UNREADABLE,
    "[topk]": UNREADABLE,
    "topk\0": UNREADABLE,
    "topk(density=\ud800)": UNREADABLE,
    "topk(density=" + "-" * 3000 + "1)": UNREADABLE,
    "ef(" * 300 + "topk" + ")" * 300: UNREADABLE,
    # code
    "__import__('os')": r"there is no '__import__'",
    "__import__('os').system('true')": UNREADABLE,
    "topk(density=__import__('os').getpid())": r"is no number or word",
    "topk(density=exit())": r"'exit\(\)' is no number or word",
    "topk(density=10**9)": r"'10 \*\* 9' is no number or word",
    "topk(density={[]})": r"'{\[\]}' is no number or word",
    "(lambda: topk)()": UNREADABLE,
    "topk(density=[x for x in (1,)])": r"is no number or word",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:40]))
def test_what_is_refused_is_refused_in_one_clear_line(text):
    with pytest.raises(SchemeError, match=REFUSED[text]) as caught:
        parse_scheme(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200 + len(text)
    assert not re.search(r"object at 0x|Traceback|<ast", message)


def test_wrapping_twice_is_refused_in_code_too():
    with pytest.raises(SchemeError, match="already has this memory"):
        remember(ErrorFeedback(units="gradient"), parse_scheme("ef(topk)"))


def test_parameters_are_checked_in_code_too():
    with pytest.raises(SchemeError, match=r"topk: density = 0 is out of range"):
        TopK(0)
    with pytest.raises(SchemeError, match=r"qsgd: bits = 9 is out of range"):
        QSGD(bits=9)
