"""Knobs: the integer parameters of a sketch."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.ir.expr import Var
from tilewright.util.errors import TilewrightError


@dataclass(frozen=True, slots=True)
class Knob:
    """An integer parameter with the values it may take, ascending.

    In a sketch's symbolic program the knob is the size :attr:`var` of the same name.
    """

    name: str
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise TilewrightError(f"knob {self.name} has no values", hint="give it at least one")
        if list(self.values) != sorted(set(self.values)):
            raise TilewrightError(f"knob {self.name}: values {self.values} are not ascending and distinct")

    @property
    def var(self) -> Var:
        """The knob as it stands in extents and constraints."""
        return Var(self.name)

    def nearest(self, value: int) -> int:
        """The legal value closest to ``value`` (the smaller of two)."""
        return min(self.values, key=lambda v: (abs(v - value), v))
