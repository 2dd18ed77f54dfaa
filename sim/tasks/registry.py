"""The one list of tasks, and how a task is made from a name and options."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from .base import Task, TaskError
from .logistic import Logistic
from .mnist import Mnist
from .quadratic import Quadratic

TASKS: dict[str, type[Task]] = {"logistic": Logistic, "mnist": Mnist, "quadratic": Quadratic}


def make_task(name: str, options: Mapping[str, Any], search: Path | None = None) -> Task:
    """Make a task.

    Parameters
    ----------
    name : str
        A key of :data:`TASKS`, or the import path of a task of one's own, ``package.module:Task``.
    options : mapping
        The task's fields by name, of the types that TOML has; others keep their defaults.
    search : Path, optional
        A folder that import paths are looked up in first. As Python does with a script's folder, it is put at the front
        of ``sys.path`` and stays there: a process that unpickles the task must find it too.

    Raises
    ------
    TaskError
        If there is no such task, it cannot be imported, or an option is unknown, missing or unfit.
    """
    kind = _imported(name, search) if ":" in name else _listed(name)
    values = _checked(kind, options)
    try:
        return kind(**values)
    except TaskError:
        raise
    except Exception as error:
        raise TaskError("name", name, f"refused its options: {_told(error)}") from error


def _listed(name: str) -> type[Task]:
    """Return a task of the list."""
    if name not in TASKS:
        known = f"expected {', '.join(TASKS)} or a task of your own as 'package.module:Task'"
        raise TaskError("name", name, f"no such task; {_nearest(name, TASKS)}{known}")
    return TASKS[name]


def _imported(name: str, search: Path | None) -> type[Task]:
    """Return a user's own task."""
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise TaskError("name", name, "is not an import path of the form 'package.module:Task'")
    if search is not None and str(search.resolve()) not in sys.path:
        sys.path.insert(0, str(search.resolve()))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            where = "on sys.path" if search is None else f"in {search.resolve()} or elsewhere on sys.path"
            raise TaskError("name", name, f"there is no module {missing!r} {where}") from error
        raise TaskError("name", name, f"importing {module_name!r} raised {_told(error)}") from error
    if not hasattr(module, attribute):
        near = _nearest(attribute, vars(module))
        origin = getattr(module, "__file__", None) or module_name
        raise TaskError("name", name, f"there is no {attribute!r} in {origin}; {near}expected a Task")
    return _task_class(name, getattr(module, attribute))


def _task_class(name: str, kind: object) -> type[Task]:
    """Return what was imported if it is a usable task."""
    if not isinstance(kind, type) or not issubclass(kind, Task):
        raise TaskError("name", name, "is not a Task; expected a class derived from gradwire.sim.tasks.Task")
    lacking = sorted(getattr(kind, "__abstractmethods__", ()))
    lacking += [label for label in ("metric", "higher_is_better") if not hasattr(kind, label)]
    if lacking:
        raise TaskError("name", name, f"is an incomplete Task; it lacks {', '.join(lacking)}")
    if not is_dataclass(kind):
        raise TaskError("name", name, "is a Task but not a dataclass; put @dataclass(frozen=True) above it")
    return kind


def _checked(kind: type[Task], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, checked against the task's fields."""
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            expected = f"expected {', '.join(known)}" if known else "this task has none"
            raise TaskError(key, options[key], f"no such option; {_nearest(key, known)}{expected}")
    for key, field in known.items():
        if key not in options and field.default is MISSING and field.default_factory is MISSING:
            raise TaskError(key, None, "is missing, and has no default")
    try:
        types = get_type_hints(kind, include_extras=True)
    except Exception as error:
        raise TaskError("name", kind.__name__, f"has a field whose type cannot be read: {_told(error)}") from error
    return {key: _fitted(types[key], key, value) for key, value in options.items()}


def _fitted(annotation: Any, key: str, value: Any) -> Any:
    """Return an option's value as its annotated type; only what TOML cannot say otherwise is converted."""
    try:
        # Pydantic's errors about types cannot be pickled, so ours must not hold them on its way out of a process.
        with suppress(PydanticUserError, PydanticSerializationError):
            # JSON has TOML's types: strictly, 1 is no bool and "1" no int, but an array may be a tuple, text a Path.
            return TypeAdapter(annotation).validate_json(to_json(value), strict=True)
    except ValidationError as error:
        wrong = "; ".join(dict.fromkeys(detail["msg"] for detail in error.errors()))
        raise TaskError(key, value, wrong.replace("Input should", "should")) from error
    raise TaskError(key, value, f"cannot be given as an option: its type is {inspect.formatannotation(annotation)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the names most like one, or nothing."""
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def _told(error: BaseException) -> str:
    """Return an exception's type and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
