"""Schedules: named, checked rewrites of kernels, and the traces that record them.

``Schedule(kernel)`` applies primitives as methods; ``replay(kernel, trace)`` repeats them.
"""

from __future__ import annotations

from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Step, Trace

__all__ = ["Schedule", "Step", "Trace", "replay"]
