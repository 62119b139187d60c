"""The schedule space that a program and a machine induce: rules, sketches, knobs, points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {"Context": "context", "Knob": "knob", "Plan": "plan", "Sketch": "sketch", "Space": "space", "discover": "rule"}
__all__ = ["Context", "Knob", "Plan", "Sketch", "Space", "discover"]

if TYPE_CHECKING:
    from tilewright.space.context import Context as Context
    from tilewright.space.knob import Knob as Knob
    from tilewright.space.plan import Plan as Plan
    from tilewright.space.rule import discover as discover
    from tilewright.space.sketch import Sketch as Sketch
    from tilewright.space.space import Space as Space
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
