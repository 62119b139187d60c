"""MLIR text of every level: loops (func, scf, memref, arith, math), contractions as linalg, command programs in a declared dialect."""

from __future__ import annotations

from typing import Any

_HOME = {
    "emit_mlir": "function",
    "emit_command_mlir": "commands",
    "emit_irdl": "dialect",
    "emit_block_mlir": "blocks",
    "emit_block_irdl": "blocks",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
