"""Parameters changed in a scheme's text, and left open: over the whole registry, and in nested texts."""

from dataclasses import fields

import pytest

from gradwire.compressors.base import SchemeError
from gradwire.compressors.registry import MEMORIES, SCHEMES, WRAPPERS
from gradwire.compressors.spec import parse_scheme, with_open, with_parameter

AROUND = {"twosided": "twosided(onebit)", "phases": "phases(dense, topk, at=100)", "layers": "layers(topk, below=9)"}
ALL = {**SCHEMES, **MEMORIES, **WRAPPERS}
TEXTS = {name: AROUND.get(name, name if name in SCHEMES else f"{name}(topk)") for name in ALL}
EACH = [(name, f.name) for name, kind in ALL.items() for f in fields(kind)]


def value_of(name, key):
    """Return the value that a parameter has in the example, read from the object itself."""
    scheme = parse_scheme(TEXTS[name])
    if name in SCHEMES:
        return getattr(scheme, key)
    for holder in ("memory", "schedule", "rules"):
        if isinstance(owner := getattr(scheme, holder, None), ALL[name]):
            return getattr(owner, key)
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "key"), EACH)
def test_a_parameter_set_to_what_it_is_changes_nothing(name, key):
    text = TEXTS[name]
    assert with_parameter(text, key, value_of(name, key)) == str(parse_scheme(text))


@pytest.mark.parametrize(("name", "key"), EACH)
def test_a_parameter_left_open_can_be_filled_again(name, key):
    """The label without it has its bare name; two values of it have one label."""
    text = TEXTS[name]
    label = with_open(text, [key])
    assert key in label.replace("(", " ").replace(")", " ").replace(",", " ").split()
    assert f"{key}=" not in label.removeprefix(f"{name}_")
    assert with_open(str(with_parameter(text, key, value_of(name, key))), [key]) == label


def test_nothing_has_a_parameter_that_is_not_there():
    for text in TEXTS.values():
        assert with_parameter(text, "furlongs", 1) is None
        assert with_open(text, ["furlongs"]) == with_open(text, [])


@pytest.mark.parametrize(
    ("text", "key", "value", "expected"),
    [
        ("topk", "density", 0.5, "topk(density=0.5)"),
        ("topk", "coding", "bitmap", "topk(density=0.01, coding=bitmap)"),
        ("ef(topk | qsgd)", "bits", 8, "ef(topk(density=0.01) | qsgd(bits=8))"),
        ("warmup(topk)", "steps", 7, "warmup(topk(density=0.01), steps=7)"),
        ("phases(topk, randomk, at=5)", "density", 0.1, "phases(topk(density=0.1), randomk(density=0.1), at=5)"),
        ("randomk", "scaled", True, "randomk(density=0.01, scaled=True)"),
        ("layers(topk, names='a.b')", "names", "*.bias,head.*", "layers(topk(density=0.01), names='*.bias,head.*')"),
    ],
)
def test_it_is_changed_wherever_it_stands(text, key, value, expected):
    changed = with_parameter(text, key, value)
    assert parse_scheme(changed) == parse_scheme(expected)
    assert changed == str(parse_scheme(expected))


def test_labels():
    assert with_open("ef(warmup(topk | qsgd))", ["density", "bits", "steps"]) == (
        "ef(warmup(topk(density) | qsgd(bits), steps))"
    )
    assert with_open("dense", []) == "dense(dtype=native)"
    assert with_open("natural", ["density"]) == "natural"


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "density"), (2.0, "density"), ("much", "density = 'much' is not allowed"), (True, "must be a number")],
)
def test_values_that_are_not_allowed(value, words):
    with pytest.raises(SchemeError, match=words):
        with_parameter("ef(topk)", "density", value)
