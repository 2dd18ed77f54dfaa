"""Text forms of schemes within schemes: whatever is built reads back as it was written."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from gradwire.compressors.base import Codec, Memory, Passes, Scheme, SchemeError, Shape
from gradwire.compressors.compose import compose
from gradwire.compressors.policy import Layered, Layers
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.registry import MEMORIES, SCHEMES, WRAPPERS
from gradwire.compressors.remember import remember
from gradwire.compressors.schedule import Phases, Warmup
from gradwire.compressors.sparsifiers.sparse import Sparsifier
from gradwire.compressors.spec import parse_scheme

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(1, 600),
    float: st.one_of(st.floats(1e-6, 1), st.just(1), st.integers(2, 9)),
}


@st.composite
def parts(draw: st.DrawFn, cls: type) -> Any:
    """Draw a scheme or memory with any parameters that it allows."""
    hints = get_type_hints(cls)
    options = {}
    for f in fields(cls):
        hint = hints[f.name]
        literal = get_origin(hint) is Literal
        options[f.name] = draw(st.sampled_from(get_args(hint)) if literal else VALUES[hint])
    try:
        return cls(**options)
    except SchemeError:
        return cls()


def plain(kind: type = Scheme) -> st.SearchStrategy[Scheme]:
    return st.sampled_from([cls for cls in SCHEMES.values() if issubclass(cls, kind)]).flatmap(parts)


def built(make: Callable[[], Scheme]) -> Scheme:
    """Make a scheme; draw again if these parts do not go together."""
    try:
        return make()
    except SchemeError:
        reject()


@st.composite
def compositions(draw: st.DrawFn) -> Scheme:
    try:
        return compose(draw(plain(Sparsifier)), draw(plain(Codec)))
    except SchemeError:
        return draw(plain(Sparsifier))


@st.composite
def scheduled(draw: st.DrawFn) -> Scheme:
    if draw(st.booleans()):
        inner = draw(st.one_of(plain(Sparsifier), compositions()))
        warmup = Warmup(draw(st.floats(0.001, 1)), draw(st.integers(1, 10**6)))
        return built(lambda: warmup.wrap((inner,)))  # not all sparsifiers have a density
    schemes = draw(st.lists(st.one_of(plain(), compositions()), min_size=2, max_size=4))
    assume(len({scheme.law for scheme in schemes}) == 1)
    count = len(schemes) - 1
    at = sorted(draw(st.sets(st.integers(1, 1000), min_size=count, max_size=count)))
    return built(lambda: Phases(tuple(at)).wrap(tuple(schemes)))


@st.composite
def remembered(draw: st.DrawFn) -> Scheme:
    memory: Memory = draw(st.sampled_from(list(MEMORIES.values())).flatmap(parts))
    inner = draw(st.one_of(plain(), compositions(), scheduled()))
    return built(lambda: remember(memory, inner))


@st.composite
def layered(draw: st.DrawFn) -> Scheme:
    any_scheme = st.one_of(plain(), compositions(), scheduled(), remembered())
    words = st.text(st.sampled_from("ab.*?[]!,_' \"\\=é"), max_size=8)
    rules = Layers(draw(st.integers(1, 10**7)), draw(st.booleans()), draw(words))
    inner = draw(st.one_of(any_scheme, any_scheme.map(lambda scheme: rules.wrap((scheme,)))))
    return rules.wrap((inner, draw(any_scheme)))


@given(st.one_of(plain(), compositions(), scheduled(), remembered(), layered()))
def test_every_nested_scheme_reads_back_as_it_was_written(scheme):
    text = str(scheme)
    assert parse_scheme(text) == scheme
    assert str(parse_scheme(text)) == text
    assert parse_scheme(f"  {text}\n") == scheme
    assert "\n" not in text


@given(st.text(st.sampled_from("topk(density=0.1)|ef,qsgd warmup@'[]"), max_size=40))
def test_any_text_is_a_scheme_or_refused_in_one_line(text):
    refusal = ""
    try:
        scheme = parse_scheme(text)
    except SchemeError as error:
        refusal = str(error)
    else:
        assert parse_scheme(str(scheme)) == scheme
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("topk|qsgd", "topk(density=0.01) | qsgd(bits=4)"),
        ("ef( (topk) | (qsgd) , units=gradient )", "ef(topk(density=0.01) | qsgd(bits=4), units=gradient)"),
        ("warmup(topk, start=0.25, steps=400, key=density)", "warmup(topk(density=0.01))"),
        ("phases(topk, dense, at=(100,))", "phases(topk(density=0.01), dense(dtype=native), at=100)"),
        ("layers(topk, names='head')", "layers(topk(density=0.01), names=head)"),
        ("layers(topk, names='True')", "layers(topk(density=0.01), names='True')"),
        ("layers(topk, names='a\\'b')", 'layers(topk(density=0.01), names="a\'b")'),
        ("ef21(topk)", "ef21(topk(density=0.01))"),
    ],
)
def test_ways_of_writing(text, written):
    assert str(parse_scheme(text)) == written


def test_a_scheme_without_parameters_says_so_where_it_is_given_some(monkeypatch):
    @dataclass(frozen=True)
    class Bare(Codec):
        name = "bare"
        title = paper = collective = "none"
        unbiased = True
        combine = "sum"

        def error_bound(self, shape: Shape) -> float:
            return 0.0

        def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
            return 0.0

        def passes(self, shape: Shape) -> Passes:
            return Passes(0, 0, 0)

        encode = decode = Dense.encode

    monkeypatch.setitem(SCHEMES, "bare", Bare)
    assert str(parse_scheme("bare")) == str(parse_scheme("bare()")) == "bare"
    with pytest.raises(SchemeError, match=r"bare has no parameters$"):
        parse_scheme("bare(3)")
    with pytest.raises(SchemeError, match=r"bare has no parameter 'density'; it has none$"):
        parse_scheme("bare(density=3)")
    assert str(parse_scheme("ef(bare)")) == "ef(bare)"


def test_names_are_unique():
    names = [*SCHEMES, *MEMORIES, *WRAPPERS]
    assert len(set(names)) == len(names)
    assert all(wrapper.name == name for name, wrapper in WRAPPERS.items())


def test_two_layered_schemes_differ_by_their_rules():
    one, other = (parse_scheme(f"layers(topk, below={below})") for below in (5, 6))
    assert isinstance(one, Layered)
    assert one != other
    assert hash(one) != hash(other)
