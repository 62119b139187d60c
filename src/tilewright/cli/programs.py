"""Programs named on the command line: FILE.py:kernel, or an operator by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.ir.stmt import Kernel
from tilewright.mapping.operators import FLOAT, Types, build_operator
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import LanguageError
from tilewright.util.source_file import import_file


def load_program(text: str, extents: Mapping[str, int] | None = None, types: Types = FLOAT) -> Kernel | Schedule:
    """The Kernel or Schedule that ``FILE.py:name`` defines (``FILE.py`` if it defines one), or an operator's kernel.

    ``extents`` and element ``types`` are for operators. LanguageError when the file cannot be read or has no such
    program; MappingError for an unknown operator.
    """
    path, _, name = text.partition(".py:")
    if text.endswith(".py") or name:
        return load_definition(Path(path + ".py" if name else text), name, (Kernel, Schedule))
    return build_operator(text.lower(), types, **(extents or {}))


def kernel_of(program: Kernel | Schedule) -> Kernel:
    """The kernel as it is written now."""
    return program.kernel if isinstance(program, Schedule) else program


def extents_of(text: str) -> dict[str, int]:
    """``i=512,j=512`` as a dict; a usage error names the part that is not NAME=N."""
    from tilewright.cli.options import integers

    return integers([part.strip() for part in text.split(",") if part.strip()], "--shape")


def load_definition(path: Path, name: str, kinds: tuple[type, ...]) -> Any:
    """What the Python file at ``path`` defines of ``kinds`` under ``name`` (may be empty if it defines one); LanguageError if nothing."""
    module = import_file(path, LanguageError, "name a Python file that defines a kernel: FILE.py:kernel")
    public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    found = {k: v for k, v in public.items() if isinstance(v, kinds)}
    if blocks := [k for k, v in public.items() if callable(getattr(v, "block_ir", None)) and k not in found and name in ("", k)]:
        if name or not found:
            hint = "tilewright opt prints it: give its --arg and --grid; in Python f.kernel(grid, ...) is its kernel"
            raise LanguageError(f"{blocks[0]} is a block program, which becomes a kernel with its arguments", hint=hint)
    if not found:
        others = [k for k, v in public.items() if callable(getattr(v, "block_ir", None))]
        hint = f"it has the block program {others[0]}" if others else "decorate a function with @tilewright.kernel, or assign a Schedule"
        raise LanguageError(f"{path} defines no kernel{f' {name!r}' if name else ''}", hint=hint)
    if not name and len(found) > 1:
        raise LanguageError(f"{path} defines several kernels: {', '.join(found)}", hint=f"name one: {path}:{next(iter(found))}")
    if name and name not in found:
        raise LanguageError(f"{path} has no kernel {name!r}", hint=f"it has: {', '.join(found)}")
    return found[name] if name else next(iter(found.values()))
