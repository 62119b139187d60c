"""Parallel units: the hardware that loop iterations may be bound to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """``count`` equal units inside each instance of ``parent`` (None: of the chip).

    A loop of kind BIND names a unit; ``memory`` is the innermost memory that iterations bound
    to different units of this kind share (None: main memory). ``per_pass`` units of this kind execute in
    lockstep when they form a group (32 for the threads of a warp).
    """

    name: str
    count: int
    parent: str | None = None
    memory: str | None = None
    per_pass: int = 1
    note: str = ""
