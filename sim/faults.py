"""Faults that pydantic finds in data, one line each: the key, the value and what is allowed."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel


def fault_lines(faults: Sequence[Any], model: type[BaseModel]) -> list[str]:
    """Say each fault in one line, but for those that only follow from a fault inside of them."""
    inner = {fault["loc"][:-1] for fault in faults}
    return [_line(fault, model) for fault in faults if not (fault["type"] == "too_short" and fault["loc"] in inner)]


_WANTED = {
    "model_type": "must be a section of keys",
    "model_attributes_type": "must be a section of keys",
    "dict_type": "must be a table of keys",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "must not hold control characters",
}


def _line(fault: Any, model: type[BaseModel]) -> str:
    """Say one fault in one line."""
    key = ".".join(map(str, fault["loc"]))
    message = _WANTED.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))
    if fault["type"] == "extra_forbidden":
        known = _keys(fault["loc"][:-1], model)
        close = get_close_matches(str(fault["loc"][-1]), known, n=3, cutoff=0.5)
        return f"{key}: unknown key; " + (
            f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        )
    if fault["type"] == "missing":
        return f"{key}: this key is needed"
    if not key:
        return message.replace("\n", " ")
    given = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r}"
    return f"{key}{given}: {message}".replace("\n", " ")


def _keys(location: Sequence[str | int], model: Any) -> list[str]:
    """Return the keys of a section."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            candidates = [annotation, *getattr(annotation, "__args__", ())]
            model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
