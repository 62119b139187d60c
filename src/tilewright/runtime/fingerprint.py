"""Texts that identify declarations by content, for keys of the build cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache, partial
from types import CodeType, FunctionType
from typing import Any

from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import Location, RuntimeFailure


@lru_cache(maxsize=64)
def machine_fingerprint(machine: Machine) -> str:
    """What of a machine decides the code generated for it.

    Clock, bandwidths, unit counts and the size of main memory do not: on a host they are measured
    and may differ from one day to the next.
    """
    memories = tuple((m.name, m.kind, m.level, None if m.kind == "main" else m.bytes) for m in machine.memories)
    return fingerprint((memories, machine.instructions, machine.transfers, machine.states, machine.vector_bits, machine.target))


@lru_cache(maxsize=64)
def decisive_fingerprint(machine: Machine) -> str:
    """What of a machine decides schedules: all of it but the size of main memory.

    The clock counts to two digits: under a hypervisor it is measured.
    """
    memories = tuple(dataclasses.replace(m, bytes=None) if m.kind == "main" else m for m in machine.memories)
    return f"{machine_fingerprint(machine)} {fingerprint((memories, machine.units))} {machine.clock_hz:.2g}"


def fingerprint(declaration: Any) -> str:
    """A text equal for declarations that generate equal code, and only for those.

    Kernels count by their program text and functions by their byte code, constants and captured
    values, so editing a machine file changes its fingerprint whether or not names stay the same.
    """
    return _text(declaration)


def _text(value: Any) -> str:
    match value:
        case None | bool() | int() | float() | str() | bytes() | Enum():
            return repr(value)
        case Location():
            return ""  # where a thing was written does not change what it is
        case Kernel():
            return f"{value.instruction}:{value}"
        case Mapping():
            return "{" + ",".join(sorted(f"{_text(k)}:{_text(v)}" for k, v in value.items())) + "}"
        case tuple() | list():
            return "(" + ",".join(map(_text, value)) + ")"
        case set() | frozenset():
            return "{" + ",".join(sorted(map(_text, value))) + "}"
        case FunctionType():
            cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
            return f"{_code(value.__code__)}{_text(cells)}{_text(value.__defaults__)}"
        case partial():
            return f"partial({_text(value.func)},{_text(value.args)},{_text(value.keywords)})"
    if dataclasses.is_dataclass(value):
        fields = ",".join(_text(getattr(value, f.name)) for f in dataclasses.fields(value))
        return f"{type(value).__qualname__}({fields})"
    if type(value).__repr__ is not object.__repr__:
        return repr(value)
    raise RuntimeFailure(f"{value!r} in a machine declaration has no identity by content", hint="use dataclasses, functions and plain data")


def _code(code: CodeType) -> str:
    constants = ",".join(_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return f"{code.co_code.hex()}[{constants}][{','.join(code.co_names)}]"
