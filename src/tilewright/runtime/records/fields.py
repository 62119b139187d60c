"""What the fields of tasks, sessions and records may hold, wherever they are read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from tilewright.runtime.records.record import Record
from tilewright.runtime.records.session import Session
from tilewright.runtime.records.task import Task
from tilewright.util.errors import RuntimeFailure


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)


def _is_map(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(of, value.values()))


def _is_list(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _or_none(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or of(value)


_ANYTHING = _is_map(lambda value: True)
_FORMS: dict[type, dict[str, Callable[[Any], bool]]] = {
    Task: {"threads": _is_int, "constants": _is_list(_is_text), "unaligned": _is_list(_is_text)},
    Session: {
        "tasks": _is_map(_is_number), "options": _ANYTHING, "seed": _is_int, "trials": _or_none(_is_int), "seconds": _or_none(_is_number),
        "sittings": _is_list(_ANYTHING),
    },
    Record: {
        "samples": _is_list(_is_number), "point": _or_none(_ANYTHING), "estimate": _or_none(_is_number), "seed": _is_int,
        "versions": _is_map(_is_text), "winner": _is_flag, "gain": _or_none(_is_number),
    },
}  # fmt: skip


def checked(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``kind`` in ``data``, each of its type; RuntimeFailure names the one that is not, or is missing."""
    known = {f.name: f for f in fields(kind) if f.init}
    required = {name for name, f in known.items() if f.default is f.default_factory is MISSING} - {"task"}
    if absent := sorted(required - data.keys()):
        raise RuntimeFailure(f"the {kind.__name__.lower()} lacks {', '.join(absent)}")
    values = {name: data[name] for name in known if name in data}
    for name, value in values.items():
        if not _FORMS[kind].get(name, _is_text)(value):
            raise RuntimeFailure(f"{name} of the {kind.__name__.lower()} is {json.dumps(value)[:40]}")
    return values
