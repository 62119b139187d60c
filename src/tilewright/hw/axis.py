"""Axes of an instruction: how many iterations the hardware does in one issue, and which counts it accepts."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.util.errors import MachineError

FIXED, UPTO, VECTOR, STEP = "fixed", "upto", "vector", "step"
SPATIAL, REDUCTION = "spatial", "reduction"


@dataclass(frozen=True, slots=True)
class AxisRule:
    """Which extents an axis accepts: exactly ``extent``, 1..extent, or multiples of ``multiple`` up to extent."""

    rule: str
    extent: int
    multiple: int = 1

    def accepts(self, n: int) -> bool:
        """Whether the hardware can execute exactly ``n`` iterations of the axis."""
        match self.rule:
            case "upto":
                return 1 <= n <= self.extent
            case "step":
                return 0 < n <= self.extent and n % self.multiple == 0
        return n == self.extent

    def accepts_all(self, lo: int | None, hi: int | None) -> bool:
        """Whether the hardware can execute every number of iterations in lo..hi (None: not known)."""
        if lo is None or hi is None:
            return False
        return all(self.accepts(n) for n in ((lo, hi) if self.rule == UPTO else range(lo, hi + 1)))

    def __str__(self) -> str:
        match self.rule:
            case "fixed":
                return str(self.extent)
            case "step":
                return f"step({self.multiple}, {self.extent})"
        return f"{self.rule}({self.extent})"


@dataclass(frozen=True, slots=True)
class Axis:
    """A named iteration of the instruction: its rule and whether it is spatial or a reduction."""

    name: str
    rule: AxisRule
    kind: str

    @property
    def extent(self) -> int:
        """The largest number of iterations one issue does."""
        return self.rule.extent

    @property
    def is_reduction(self) -> bool:
        return self.kind == REDUCTION

    def __str__(self) -> str:
        return f"{self.name}: {self.rule} {self.kind}"


def upto(n: int) -> AxisRule:
    """The hardware accepts any extent from 1 to ``n``: tails need no padding."""
    return AxisRule(UPTO, _extent("upto", n))


def vector(n: int) -> AxisRule:
    """Exactly ``n`` lanes, executed side by side."""
    return AxisRule(VECTOR, _extent("vector", n))


def step(n: int, most: int) -> AxisRule:
    """Any multiple of ``n`` up to ``most``."""
    if _extent("step", most) % _extent("step", n):
        raise MachineError(f"step({n}, {most}): {most} is not a multiple of {n}", hint="give the largest extent as a multiple of the step")
    return AxisRule(STEP, most, n)


def fixed(n: int) -> AxisRule:
    """Exactly ``n`` iterations; smaller problems are padded."""
    return AxisRule(FIXED, _extent("axes", n))


def axes(*extents: int | AxisRule) -> tuple[AxisRule, ...]:
    """Declares the iteration axes of an instruction: ``i, j, k = axes(16, vector(16), upto(4))``."""
    return tuple(e if isinstance(e, AxisRule) else fixed(e) for e in extents)


def _extent(what: str, n: int) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise MachineError(f"{what}({n!r}): an axis extent must be an int >= 1")
    return n
