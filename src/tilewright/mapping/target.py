"""The instruction side of a mapping: the same operator view, plus what the hardware accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tilewright.hw.instruction import Instruction
from tilewright.ir import expr as ex
from tilewright.ir.expr import Load
from tilewright.ir.stmt import Kernel
from tilewright.mapping.operator import Operand, Operator, operator_of, plain
from tilewright.util.errors import MappingError


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction to map onto. ``view`` is its semantics; rows of operands index its tiles."""

    name: str
    view: Operator
    declaration: Instruction | None = field(default=None, compare=False)

    @property
    def axes(self) -> tuple[str, ...]:
        return self.view.names

    def operand_text(self, operand: Operand) -> str:
        """The operand as the instruction's body writes it, e.g. ``a[i, k]``."""
        return str(operand.expr)

    def tile_extent(self, axis: str, fused: int) -> int:
        """Iterations of ``axis`` one issue should do when ``fused`` are wanted in all.

        Fixed axes do their extent. Where hardware accepts fewer, the trips share the work evenly,
        so that at most one element for each trip is padding.
        """
        largest = self.view.extents[self.view.column(axis)]
        if self.declaration is None:
            return largest
        rule = self.declaration.axis(axis).rule
        trips = -(-fused // largest)
        even = -(-fused // max(trips, 1))
        if rule.rule == "step":
            even = -(-even // rule.multiple) * rule.multiple
        return even if rule.accepts(even) else largest

    def kernel_for(self, extents: Mapping[str, int]) -> Kernel:
        """The semantics at the given extents of its axes."""
        if self.declaration is None or all(extents[i.name] == i.extent for i in self.view.iterations):
            return self.view.kernel
        return self.declaration.kernel_for(extents)


def target_of(instruction: Instruction | Kernel | Target) -> Target:
    """The target that ``instruction`` (or a kernel of its semantics) declares.

    Raises MappingError unless its body is one perfect nest whose sources are loads of operands.
    """
    if isinstance(instruction, Target):
        return instruction
    declared = instruction if isinstance(instruction, Instruction) else None
    kernel = instruction.kernel if isinstance(instruction, Instruction) else instruction
    view = operator_of(kernel)
    for s in view.sources:
        if not isinstance(plain(s.expr), Load) or len(ex.loads(s.expr)) != 1:
            raise MappingError(
                f"instruction {kernel.name}: {s.expr} is not a plain operand",
                hint="a mappable body is `c[..] += a[..] * b[..]`: products or sums of operands",
            )
    return Target(declared.name if declared else kernel.name, view, declared)
