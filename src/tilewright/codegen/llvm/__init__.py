"""LLVM backend: scheduled kernels to LLVM IR text, and that text to machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {"Emitted": "module", "compile_ir": "compile", "emit": "module"}
__all__ = ["Emitted", "compile_ir", "emit"]

if TYPE_CHECKING:
    from tilewright.codegen.llvm.compile import compile_ir
    from tilewright.codegen.llvm.module import Emitted, emit
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
