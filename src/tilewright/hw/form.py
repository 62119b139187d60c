"""Loop forms: one run of a few words that the hardware unrolls into loads, computations and stores of a whole tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tilewright.hw.emit import Bits, RoCC, Steps
from tilewright.hw.instruction import Instruction

#: Lines that a run takes, from its iterations along each axis and what its fields are.
Lines = Callable[[Mapping[str, int]], int]


@dataclass(frozen=True, slots=True)
class Part:
    """A phase of a form: ``instruction`` says what it does, ``fields`` what the words say of it, where that is not what is ``idle``.

    ``around`` names operands' dimensions that may begin before the array in main memory and end after it, as if there were zeros, and
    how much more than the axes reach the hardware reads at their end: (operand, dimension, more).
    """

    instruction: Instruction
    fields: tuple[tuple[str, int], ...] = ()
    around: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class LoopForm:
    """Sums up a tile in operand ``sums``: one of the ``starts`` sets it, one of the ``updates`` adds, one of the ``finishes`` takes it out.

    Where it ``chains``, a run without a start goes on with what the run before left; one without a finish leaves its sums to the
    next. Operands of the
    parts other than the sums are in main memory. The last of ``words`` runs what they all say. Their bit fields are numbers, or:
    ``"<operand>.address"``; ``"<operand>_pitch"``, elements from row to row (along the last dimension but one, 0 if there is none);
    ``"<operand>_size<d>"``, what dimension d is in main memory, ``"<operand>_extent<d>"``, what a run takes of it;
    ``"<operand>_before<d>"`` and ``"<operand>_after<d>"``, the zeros around it; ``"<axis>_extent"``; ``"<axis>_blocks"``, the blocks
    of ``block`` elements begun along an axis, and ``"<axis>_pad"``, what the last of them lacks; and the names in ``idle``, which has
    what every field that a part may leave out is then (0: no operand).

    ``lines`` tells the lines of each memory that a run takes; states in ``clobbers`` are lost when it runs. A memory declared with
    ``buffers=2`` gives it half: the hardware takes the halves in turn, the sums' when a run with a finish ends. ``ways`` are fields that
    say how a run works, not what it computes: numbers that follow from those of its extents that are numbers.
    """

    name: str
    sums: str
    starts: tuple[Part, ...]
    updates: tuple[Part, ...]
    finishes: tuple[Part, ...]
    words: tuple[RoCC, ...]
    block: tuple[tuple[str, int], ...]
    lines: tuple[tuple[str, Lines], ...]
    idle: tuple[tuple[str, int], ...] = ()
    chains: bool = True
    ways: tuple[tuple[str, Lines], ...] = ()
    clobbers: tuple[str, ...] = ()
    note: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts: those that start, that add, that finish."""
        return (*self.starts, *self.updates, *self.finishes)

    @cached_property
    def instruction(self) -> Instruction:
        """The form as an instruction of several words whose operands are those of all parts."""
        operands = {o.name: o for p in self.parts for o in p.instruction.operands}
        return replace(self.updates[0].instruction, name=self.name, operands=tuple(operands.values()), needs=(), emit=Steps(self.words))

    @property
    def bits(self) -> tuple[Bits, ...]:
        """The bit fields of all words."""
        return tuple(b for w in self.words for b in (*w.rs1, *w.rs2))
