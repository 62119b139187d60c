"""LLVM backend: scheduled kernels to LLVM IR text, and that text to machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.codegen.llvm.compile import compile_ir
    from tilewright.codegen.llvm.module import Emitted, emit

__all__ = ["Emitted", "compile_ir", "emit"]


def __getattr__(name: str) -> Any:
    if name == "compile_ir":
        from tilewright.codegen.llvm.compile import compile_ir

        return compile_ir
    if name in ("emit", "Emitted"):
        from tilewright.codegen.llvm import module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
