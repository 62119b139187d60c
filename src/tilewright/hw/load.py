"""Finds machines: the library's by name, a user's by path. Adding a machine is adding one file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from tilewright.hw import library
from tilewright.hw.family import Family
from tilewright.hw.machine import Machine
from tilewright.ir.types import parse_dtype
from tilewright.util.errors import IRTypeError, MachineError, TilewrightError
from tilewright.util.source_file import import_file


def list_machines() -> list[str]:
    """Names of all machines of the library, sorted (imports every file of hw/library)."""
    modules = [importlib.import_module(f) for f in library_modules()]
    return sorted(n for m in modules for n in (*_machines(m), *_more(m)))


def load_machine(name_or_path: str | Path) -> Machine:
    """The machine called ``"x86.avx512"``, ``"cuda.sm80"`` ..., ``"host"`` (this computer), or in a Python file.

    A path may select one of several machines of a file: ``"mine.py:big"``. A family without a member (``"x86"``) is
    this computer if it is of that family, else the family's last machine. Parameters after a colon make one that has no name of its
    own: ``"gemmini:dim=8,inputs=bf16"``. MachineError lists what there is.
    """
    text = str(name_or_path)
    if text == "host":
        return Machine.host()
    path, _, member = text.partition(".py:")
    if text.endswith(".py") or member:
        return _from_file(Path(path + ".py" if member else text), member)
    family, colon, parameters = text.partition(":")
    stem = family.partition(".")[0]
    modules = {name.rpartition(".")[2]: name for name in library_modules()}
    if stem not in modules:
        raise MachineError(f"there is no machine {text!r}", hint=f"known: {', '.join(list_machines())}, host, or a path ending in .py")
    module = importlib.import_module(modules[stem])
    if colon:
        return _parametrised(modules[stem], family, parameters)
    found = _machines(module)
    if text in found:
        return found[text]
    if text in (more := _more(module)):
        return _made(modules[stem], text)
    if text == stem and found:
        return _on_host(module) or list(found.values())[-1]
    raise MachineError(f"there is no machine {text!r}", hint=f"{stem} has: {', '.join((*found, *more)) or 'none'}")


def load_family(name: str) -> Family:
    """Machines of one kind and any size: ``family()`` of a file of the library, as ``gemmini`` (with parameters:
    ``gemmini:inputs=bf16``), or of a Python file (``"mine.py"``), where it may also be a :class:`Family`.

    MachineError lists what there is.
    """
    if name.endswith(".py"):
        return _family_from_file(Path(name))
    modules = {m.rpartition(".")[2]: m for m in library_modules()}
    stem, colon, parameters = name.partition(":")
    found = getattr(importlib.import_module(modules[stem]), "family", None) if stem in modules else None
    if found is None:
        known = [n for n, m in modules.items() if hasattr(importlib.import_module(m), "family")]
        raise MachineError(f"there is no family of machines {name!r}", hint=f"known: {', '.join(known)}, or a path ending in .py")
    family: Family = _called(found, stem, parameters) if colon else found()
    return family


def _family_from_file(path: Path) -> Family:
    module = import_file(path, MachineError, "give the path of a Python file that declares a Family")
    found = getattr(module, "family", None)
    try:
        made = found() if callable(found) else found
    except TilewrightError:
        raise
    except Exception as e:  # whatever the user's file raises
        raise MachineError(f"family() of {path} fails: {type(e).__name__}: {e}", hint="--debug shows where") from e
    if not isinstance(made, Family):
        what = "no family" if found is None else f"a family that is {made!r}"
        raise MachineError(f"{path} declares {what}", hint="write family = Family(...), or a function family() that makes one")
    return made


def library_modules() -> list[str]:
    """Full module names of the files in hw/library, sorted."""
    return sorted(f"{library.__name__}.{m.name}" for m in pkgutil.iter_modules(library.__path__))


def _on_host(module: ModuleType) -> Machine | None:
    on_host = getattr(module, "on_host", None)
    if on_host is None:
        return None
    from tilewright.hw.host import host_facts

    return on_host(host_facts())


def _machines(module: ModuleType) -> dict[str, Machine]:
    """Machines that are public names of the module, in the order written."""
    return {m.name: m for k, m in vars(module).items() if isinstance(m, Machine) and not k.startswith("_")}


def _more(module: ModuleType) -> Mapping[str, Callable[[], Machine]]:
    """What else a file of the library declares: machines that are made when they are asked for (``MORE``, by name)."""
    more: Mapping[str, Callable[[], Machine]] = getattr(module, "MORE", {})
    return more


@cache
def _made(module: str, name: str) -> Machine:
    return _more(importlib.import_module(module))[name]()


@cache
def _parametrised(module: str, stem: str, text: str) -> Machine:
    """What the function called like its file makes of ``a=1,b=2``."""
    make = getattr(importlib.import_module(module), stem, None)
    if not callable(make):
        raise MachineError(f"{stem!r} has no parameters", hint="name it without a colon, or declare a machine in a file")
    machine: Machine = _called(make, stem, text)
    return machine


def _called(make: Callable[..., Any], stem: str, text: str) -> Any:
    """``make`` with ``a=1,b=2``: its own parameters, or fields of those that are dataclasses."""
    defaults = {n: p.default for n, p in signature(make).parameters.items() if n != "name"}
    groups = {field.name: group for group, value in defaults.items() if is_dataclass(value) for field in fields(value)}
    known = {n: v for n, v in defaults.items() if n not in groups.values()} | {n: getattr(defaults[g], n) for n, g in groups.items()}
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in known:
            raise MachineError(f"{stem} has no parameter {name!r}", hint=f"its parameters: {', '.join(known)}")
        try:
            read = int(value) if isinstance(known[name], int) else parse_dtype(value)
        except (ValueError, IRTypeError) as error:
            what = "a whole number" if isinstance(known[name], int) else "an element type, such as bf16"
            raise MachineError(f"parameter {name} of {stem} is {value!r}, not {what}") from error
        (given.setdefault(groups[name], {}) if name in groups else given)[name] = read
    made = {n: type(defaults[n])(**v) if isinstance(v, dict) else v for n, v in given.items()}
    return make(f"{stem}:{text}", **made)


def _from_file(path: Path, member: str) -> Machine:
    module = import_file(path, MachineError, "give the path of a Python file that declares a Machine")
    found = _machines(module)
    if not found:
        raise MachineError(f"{path} declares no Machine", hint="assign one to a public name: machine = Machine(...)")
    if not member:
        return list(found.values())[-1]
    if member not in found:
        raise MachineError(f"{path} has no machine {member!r}", hint=f"it has: {', '.join(found)}")
    return found[member]
