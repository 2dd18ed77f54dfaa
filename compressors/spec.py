"""The text form of a scheme, ``ef(topk(density=0.01))``, read into the object; ``str`` writes it."""

import ast
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .base import Memory, Scheme, SchemeError, Wrapper
from .compose import compose
from .registry import MEMORIES, SCHEMES, WRAPPERS
from .remember import remember

T = TypeVar("T", Scheme, Memory, Wrapper)

_FORMS = "write name(key=value), ef(name(key=value)) or topk(density=0.01) | qsgd(bits=4)"


def parse_scheme(text: str) -> Scheme:
    """Read a scheme's text form.

    Parameters
    ----------
    text : str
        ``name``, ``name(key=value, ...)``; a memory around another scheme, ``ef(name(...), key=value)``; a sparsifier
        and what its values are sent with, ``topk(...) | qsgd(...)``; a schedule or policy around one or several
        schemes, ``warmup(name(...), steps=400)``.

    Raises
    ------
    SchemeError
        If the text has no such form, or a name, key or value is not allowed; the message says what is.

    Examples
    --------
    >>> print(parse_scheme("ef(topk(density=0.05))"))
    ef(topk(density=0.05))
    >>> print(parse_scheme("layers(ef(warmup(topk(density=0.001) | dense(dtype=bf16))), below=1024)"))
    layers(ef(warmup(topk(density=0.001) | dense(dtype=bf16))), below=1024)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SchemeError(f"scheme {text!r} cannot be read: {_FORMS}") from error
    return _scheme(tree, text)


def with_parameter(text: str, name: str, value: float | str) -> str | None:
    """Return a scheme's text form with a parameter changed, or None if nothing in it has such a parameter.

    Parameters
    ----------
    text : str
    name : str
        Of a parameter of a scheme, memory or wrapper; where several in the text have it, it is changed in all.
    value : float, int, bool or str

    Raises
    ------
    SchemeError
        If the text cannot be read, or the value is not allowed.

    Examples
    --------
    >>> with_parameter("ef(topk | qsgd(bits=4))", "density", 0.02)
    'ef(topk(density=0.02) | qsgd(bits=4))'
    >>> with_parameter("dense(dtype=bf16)", "density", 0.02) is None
    True
    """
    tree, calls = _open(text)
    new = ast.keyword(name, ast.Constant(value))
    having = [call for call in calls if _has(call, name)]
    for call in having:
        call.keywords = [new, *(keyword for keyword in call.keywords if keyword.arg != name)]
    return str(parse_scheme(ast.unparse(tree))) if having else None


def with_open(text: str, names: Iterable[str]) -> str:
    """Return a scheme's text form with parameters left open, as a label for all their values.

    >>> with_open("ef(topk(density=0.01) | qsgd(bits=4))", ["density"])
    'ef(topk(density) | qsgd(bits=4))'
    """
    tree, calls = _open(text)
    for call in calls:
        left_open = [name for name in names if _has(call, name)]
        call.keywords = [keyword for keyword in call.keywords if keyword.arg not in left_open]
        call.args += [ast.Name(name) for name in left_open]
    return ast.unparse(tree).replace("()", "")


def read_parameter(text: str, name: str) -> tuple[Any, ...]:
    """Return the values of a parameter in a scheme's text form, one for each scheme, memory or wrapper that has it.

    >>> read_parameter("ef(topk(density=0.05) | qsgd)", "density")
    (0.05,)
    """
    _, calls = _open(text)
    found: list[Any] = []
    for call in calls:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in given:
            found.append(_value(given[name], text))
        elif _has(call, name):
            assert isinstance(call.func, ast.Name)
            kinds: dict[str, type[Any]] = {**SCHEMES, **MEMORIES, **WRAPPERS}
            found += [f.default for f in fields(kinds[call.func.id]) if f.name == name]
    return tuple(found)


def _bracketed(node: ast.expr) -> ast.expr:
    """Return the tree of a scheme's canonical text with a call for each scheme that is named without brackets."""
    if isinstance(node, ast.BinOp):
        return ast.BinOp(_bracketed(node.left), node.op, _bracketed(node.right))
    if isinstance(node, ast.Call):
        return ast.Call(node.func, [_bracketed(inner) for inner in node.args], node.keywords)
    return ast.Call(node, [], [])


def _open(text: str) -> tuple[ast.expr, list[ast.Call]]:
    """Return the tree of a scheme's canonical text, and its calls, to be changed in place."""
    tree = _bracketed(ast.parse(str(parse_scheme(text)), mode="eval").body)
    return tree, [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _has(call: ast.Call, name: str) -> bool:
    """Return whether what a call names has a parameter."""
    assert isinstance(call.func, ast.Name)
    kinds: dict[str, type[Any]] = {**SCHEMES, **MEMORIES, **WRAPPERS}
    return any(f.name == name for f in fields(kinds[call.func.id]))


def _scheme(node: ast.expr, text: str) -> Scheme:
    """Build the scheme that a name, a call or a composition describes."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return compose(_scheme(node.left, text), _scheme(node.right, text))
    name, arguments, keywords = _call(node, text)
    options = _options(name, keywords, text)
    if name in MEMORIES:
        if len(arguments) != 1:
            raise SchemeError(f"scheme {text!r}: {name} goes around one scheme, as in {name}(topk(density=0.01))")
        return remember(_make(MEMORIES[name], options), _scheme(arguments[0], text))
    if name in WRAPPERS:
        inner = tuple(_scheme(argument, text) for argument in arguments)
        return _make(WRAPPERS[name], options).wrap(inner)
    if name not in SCHEMES:
        known = [*SCHEMES, *MEMORIES, *WRAPPERS]
        close = _nearest(name, known, otherwise="`gradwire ls schemes` lists what there is")
        raise SchemeError(f"scheme {text!r}: there is no {name!r}{close}")
    if arguments:
        parameters = fields(SCHEMES[name])
        advice = (
            f"write the parameters of {name} by name, as in {name}({parameters[0].name}=...)"
            if parameters
            else f"{name} has no parameters"
        )
        raise SchemeError(f"scheme {text!r}: {advice}")
    return _make(SCHEMES[name], options)


def _options(name: str, keywords: list[ast.keyword], text: str) -> dict[str, Any]:
    """Return the keyword arguments of a call."""
    options: dict[str, Any] = {}
    for keyword in keywords:
        key = keyword.arg or "**"
        if key in options:
            raise SchemeError(f"scheme {text!r}: {name} is given {key} twice")
        options[key] = _value(keyword.value, text)
    return options


def _call(node: ast.expr, text: str) -> tuple[str, list[ast.expr], list[ast.keyword]]:
    """Return name, arguments and keywords of ``name`` or ``name(...)``."""
    if isinstance(node, ast.Name):
        return node.id, [], []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id, node.args, node.keywords
    raise SchemeError(f"scheme {text!r} cannot be read: {_FORMS}")


def _value(node: ast.expr, text: str) -> Any:
    """Return a constant; a bare word is a string."""
    if isinstance(node, ast.Name):
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise SchemeError(f"scheme {text!r}: {ast.unparse(node)!r} is no number or word") from error


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    """Return the types of a scheme's parameters, which are looked up slowly."""
    return get_type_hints(cls)


def _make(cls: type[T], options: dict[str, Any]) -> T:
    """Build a scheme or memory after checking its parameters' names and types."""
    hints = _hints(cls)
    known = [f.name for f in fields(cls)]
    for key, value in options.items():
        if key not in known:
            raise SchemeError(f"{cls.name} has no parameter {key!r}{_nearest(key, known)}")
        if hints[key] == tuple[int, ...] and type(value) is int:
            value = options[key] = (value,)  # noqa: PLW2901
        _check_type(cls.name, key, value, hints[key])
    return cls(**options)


def _check_type(name: str, key: str, value: Any, hint: Any) -> None:
    """Raise unless a value has the annotated type."""
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        fits, wanted = value in allowed, "one of " + ", ".join(map(str, allowed))
    elif hint is bool:
        fits, wanted = isinstance(value, bool), "True or False"
    elif hint is str:
        fits, wanted = isinstance(value, str), "a word, or a text in quotes"
    elif hint == tuple[int, ...]:
        fits = isinstance(value, tuple) and all(type(item) is int for item in value)
        wanted = "a whole number, or several in brackets, (100, 500)"
    elif hint is int:
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    if not fits:
        raise SchemeError(f"{name}: {key} = {value!r} is not allowed: {key} must be {wanted}")


def _nearest(name: str, known: list[str], otherwise: str = "") -> str:
    """Return the end of a message about an unknown name: what it resembles, or ``otherwise``, or all there is."""
    if not known:
        return "; it has none"
    close = get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; {otherwise or 'there are ' + ', '.join(known)}"
