"""A schedule together with the decisions behind it, for people to read."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.schedule.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen for one reduction of the program.

    ``mapping`` is the instruction and which loops ride on its axes ("" where plain loops do),
    ``tile`` the register tile.
    """

    output: str
    mapping: str
    tile: str

    def __str__(self) -> str:
        return f"{self.output}: {', '.join(t for t in (self.mapping, self.tile) if t)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule, the decisions behind it, and which of them a primitive refused (those stages run as written).

    ``seconds`` is what the kernel is estimated at, where somebody asked.
    """

    schedule: Schedule
    decisions: tuple[Decision, ...] = ()
    refused: tuple[str, ...] = ()
    seconds: float | None = None
