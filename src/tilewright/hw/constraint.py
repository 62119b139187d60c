"""Conditions under which an instruction computes what its body says.

They are written in the body of the instruction and kept as data; mapping and tensorize prove
them for a use or refuse it. Address quantities are variables of ordinary index expressions, so
the conditions are evaluated (or handed to a solver) like any other index expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.ir.expr import Expr, Var, evaluate, free_vars
from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class Handle:
    """An operand or axis as the body of an instruction names it in a condition."""

    name: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Require:
    """A condition on addresses and extents, over the variables made by stride, base and extent."""

    condition: Expr
    text: str

    @property
    def variables(self) -> set[str]:
        """Names such as ``"b.stride[1]"`` (elements), ``"b.base"`` (bytes), ``"i.extent"``."""
        return free_vars(self.condition)

    def holds(self, env: Mapping[str, int]) -> bool:
        """Whether the condition holds with every variable bound to a number."""
        return bool(evaluate(self.condition, env))

    def __str__(self) -> str:
        return f"require({self.text})"


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Elements of ``operand`` must lie in lo..hi, or intermediate arithmetic saturates."""

    operand: str
    lo: int
    hi: int

    def __str__(self) -> str:
        return f"value_range({self.operand}, {self.lo}, {self.hi})"


@dataclass(frozen=True, slots=True)
class Mantissa:
    """Elements of ``operand`` may use only the top ``bits`` stored mantissa bits (TF32: 10)."""

    operand: str
    bits: int

    def __str__(self) -> str:
        return f"mantissa({self.operand}, {self.bits})"


@dataclass(frozen=True, slots=True)
class Tied:
    """The operands must be the same register (two-address instructions)."""

    a: str
    b: str

    def __str__(self) -> str:
        return f"tied({self.a}, {self.b})"


Constraint = Require | ValueRange | Mantissa | Tied


def stride(operand: Handle, dim: int) -> Var:
    """Distance in elements between neighbours along dimension ``dim`` of ``operand``."""
    if not 0 <= dim < operand.rank:
        raise MachineError(f"stride({operand.name}, {dim}): {operand.name} has {operand.rank} dimensions")
    return Var(f"{operand.name}.stride[{dim}]")


def base(operand: Handle) -> Var:
    """Address in bytes of the first element of ``operand``."""
    return Var(f"{operand.name}.base")


def extent(axis: Handle) -> Var:
    """Number of iterations of ``axis`` in this use of the instruction."""
    return Var(f"{axis.name}.extent")


def value_range(operand: Handle, lo: int, hi: int) -> ValueRange:
    """The values of ``operand`` must be proven to lie in lo..hi."""
    if lo > hi:
        raise MachineError(f"value_range({operand.name}, {lo}, {hi}) is empty")
    return ValueRange(operand.name, lo, hi)


def mantissa(operand: Handle, bits: int) -> Mantissa:
    """The values of ``operand`` must be exact with ``bits`` stored mantissa bits."""
    return Mantissa(operand.name, bits)


def tied(a: Handle, b: Handle) -> Tied:
    """``a`` and ``b`` must be allocated to the same register."""
    return Tied(a.name, b.name)


def require(condition: Expr | bool) -> Expr | bool:
    """Declares a condition on addresses: ``require(stride(b, 1) == 1)``, ``require(base(b) % 64 == 0)``."""
    return condition
