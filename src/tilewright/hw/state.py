"""Configuration state: registers an instruction depends on beyond its operands."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.ir.types import DType


@dataclass(frozen=True, slots=True)
class State:
    """Typed configuration registers, written by the instruction named ``setter``.

    An instruction that ``needs`` a state is only correct after the setter ran with the values
    the instruction wants; code generation hoists setters to where they dominate all uses.
    ``reset`` tells the values after power-on, for fields that have one; ``idle`` what to set fields to that no instruction
    depends on (0 where it does not say).
    """

    name: str
    fields: tuple[tuple[str, DType], ...]
    setter: str
    reset: tuple[tuple[str, int], ...] = ()
    idle: tuple[tuple[str, int], ...] = ()
    note: str = ""

    def field_type(self, field: str) -> DType | None:
        """Element type of ``field``, None if the state has no such field."""
        return dict(self.fields).get(field)


@dataclass(frozen=True, slots=True)
class Need:
    """The state an instruction needs, and the field values it wants: numbers, or quantities of its operands (``"src.stride"``).

    It works with any value of the fields not named.
    """

    state: str
    values: tuple[tuple[str, int | str], ...] = ()


def needs(state: State | str, **values: int | str) -> Need:
    """``needs=needs(LD, scale=1, stride="src.stride")``: the instruction is correct only under these field values."""
    return Need(state.name if isinstance(state, State) else state, tuple(sorted(values.items())))
