"""The schedule space that a program and a machine induce: rules, sketches, knobs, points."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.space.context import Context as Context
    from tilewright.space.knob import Knob as Knob
    from tilewright.space.plan import Plan as Plan
    from tilewright.space.rule import discover as discover
    from tilewright.space.sketch import Sketch as Sketch
    from tilewright.space.space import Space as Space

_HOME = {"Context": "context", "Knob": "knob", "Plan": "plan", "Sketch": "sketch", "Space": "space", "discover": "rule"}
__all__ = ["Context", "Knob", "Plan", "Sketch", "Space", "discover"]


def __getattr__(name: str) -> Any:
    # Lazily, as everywhere: importing the package must stay cheap.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
