"""C backend: kernels and command programs as portable C11; custom instruction words as C functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {"emit_c": "function", "prototype": "function", "emit_commands": "commands"}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.codegen.c.commands import emit_commands as emit_commands
    from tilewright.codegen.c.function import emit_c as emit_c
    from tilewright.codegen.c.function import prototype as prototype
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
