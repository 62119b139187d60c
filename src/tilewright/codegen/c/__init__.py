"""C backend: kernels and command programs as portable C11; custom instruction words as C functions."""

from __future__ import annotations

from typing import Any

_HOME = {"emit_c": "function", "prototype": "function", "emit_commands": "commands"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
