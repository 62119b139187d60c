"""Command programs for machines that are driven by instruction words: generation, text, checks, execution."""

from __future__ import annotations

from typing import Any

_HOME = {
    "generate": "lowering",
    "check": "checking",
    "parse_program": "reader",
    "stream": "streaming",
    **dict.fromkeys(
        ("Branch", "Command", "Fence", "Host", "Item", "Let", "Loop", "Pointer", "Program", "Tile", "Word", "has_words", "walk", "words"),
        "program",
    ),
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
