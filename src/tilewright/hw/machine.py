"""A machine: memories, units, instructions, transfers and states, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tilewright.hw.form import LoopForm
from tilewright.hw.instruction import Instruction, InstructionFamily
from tilewright.hw.memory import MAIN, Memory
from tilewright.hw.state import State
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir.types import DType
from tilewright.util.errors import Location, MachineError


@dataclass(frozen=True, slots=True)
class Target:
    """What a code generator is told: LLVM triple, CPU name, features (LLVM's ``+avx2`` without the plus)."""

    triple: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()

    @property
    def feature_string(self) -> str:
        """LLVM's form: ``"+avx2,+fma"``."""
        return ",".join(f"+{f}" for f in self.features)


UNSPECIFIED = Target()


@dataclass(frozen=True)
class Machine:
    """A complete, self-consistent machine.

    ``clock_hz`` relates cycles to seconds; ``vector_bits`` is the width of a SIMD register (0: none); ``parameters``
    are the numbers the declaration was made from. ``instructions`` may contain families: they are flattened, and every
    instruction's kernel gets its full name ``machine/instruction``. MachineError when the declaration contradicts itself.
    """

    name: str
    memories: tuple[Memory, ...]
    units: tuple[Unit, ...]
    instructions: tuple[Instruction, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    states: tuple[State, ...] = ()
    target: Target = UNSPECIFIED
    clock_hz: float = 1e9
    vector_bits: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    loc: Location | None = field(default=None, compare=False)
    forms: tuple[LoopForm, ...] = ()

    def __init__(
        self,
        name: str,
        *,
        memories: Sequence[Memory],
        units: Sequence[Unit],
        instructions: Sequence[Instruction | InstructionFamily] = (),
        transfers: Sequence[Transfer] = (),
        states: Sequence[State] = (),
        target: Target | None = None,
        clock_hz: float = 1e9,
        vector_bits: int = 0,
        parameters: Mapping[str, int] | None = None,
        note: str = "",
        loc: Location | None = None,
        forms: Sequence[LoopForm] = (),
    ):
        from tilewright.hw.validate import validate

        flat = [m for i in instructions for m in (i.members if isinstance(i, InstructionFamily) else (i,))]
        values = {
            "name": name,
            "memories": tuple(memories),
            "units": tuple(units),
            "instructions": tuple(_qualified(i, name) for i in flat),
            "transfers": tuple(replace(t, instruction=_qualified(t.instruction, name)) if t.instruction else t for t in transfers),
            "states": tuple(states),
            "target": target or UNSPECIFIED,
            "clock_hz": clock_hz,
            "vector_bits": vector_bits,
            "parameters": dict(parameters or {}),
            "note": note,
            "loc": loc,
            "forms": tuple(forms),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        validate(self)

    def __hash__(self) -> int:
        return hash((self.name, self.memories, self.units, self.target))

    # --- look-up ----------------------------------------------------------------------------

    def memory(self, name: str) -> Memory:
        """The memory called ``name``; MachineError lists those there are."""
        return self._find("memory", name, self.memories)

    def unit(self, name: str) -> Unit:
        """The unit called ``name``."""
        return self._find("unit", name, self.units)

    def state(self, name: str) -> State:
        """The configuration state called ``name``."""
        return self._find("state", name, self.states)

    def transfer(self, name: str) -> Transfer:
        """The transfer called ``name`` (``"mvin"``, or ``"dram->l3"`` where no instruction does it)."""
        return self._find("transfer", name, self.transfers)

    def instruction(self, name: str) -> Instruction:
        """The instruction called ``name``, with or without the machine's prefix; transfers' instructions included."""
        short = name.removeprefix(self.name + "/")
        return self._find("instruction", short, self.all_instructions)

    def form(self, name: str) -> LoopForm:
        """The loop form called ``name``."""
        return self._find("loop form", name, self.forms)

    def family(self, name: str) -> tuple[Instruction, ...]:
        """The members of an instruction family."""
        found = tuple(i for i in self.instructions if i.family == name)
        return found or (self._find("family", name, ()),)

    @property
    def all_instructions(self) -> tuple[Instruction, ...]:
        """Computing and configuring instructions, then those of transfers."""
        return (*self.instructions, *(t.instruction for t in self.transfers if t.instruction))

    def transfers_between(self, src: str, dst: str) -> tuple[Transfer, ...]:
        """All direct transfers from memory ``src`` to memory ``dst``."""
        return tuple(t for t in self.transfers if t.src == src and t.dst == dst)

    def _find(self, what: str, name: str, items: Sequence[Any]) -> Any:
        for item in items:
            if item.name == name:
                return item
        raise MachineError(f"machine {self.name} has no {what} {name!r}", hint=f"it has: {', '.join(i.name for i in items) or 'none'}")

    # --- structure --------------------------------------------------------------------------

    @property
    def main_memory(self) -> Memory:
        """The memory that holds kernel arguments."""
        return next(m for m in self.memories if m.kind == MAIN)

    def path(self, name: str) -> tuple[Memory, ...]:
        """The memories from ``name`` outwards to main memory, both included."""
        out = [self.memory(name)]
        while out[-1].parent is not None:
            out.append(self.memory(out[-1].parent))
        return tuple(out)

    def children(self, name: str) -> tuple[Memory, ...]:
        """The memories filled directly from ``name``."""
        return tuple(m for m in self.memories if m.parent == name)

    def instances(self, unit: str | None) -> int:
        """Number of units of a kind on the whole chip (``"chip"`` or None: 1)."""
        total = 1
        while unit not in (None, "chip"):
            u = self.unit(unit)  # type: ignore[arg-type]
            total, unit = total * u.count, u.parent
        return total

    @property
    def cores(self) -> int:
        """Units without a parent: the workers a parallel loop is divided among."""
        return sum(u.count for u in self.units if u.parent is None)

    # --- rates ------------------------------------------------------------------------------

    def seconds(self, cycles: float) -> float:
        """Time that ``cycles`` take."""
        return cycles / self.clock_hz

    def bandwidth(self, memory: str) -> float:
        """Bytes per cycle of one instance of ``memory`` (0: unknown)."""
        return self.memory(memory).bytes_per_cycle(self.clock_hz)

    def peak_ops(self, dtype: DType | None = None) -> float:
        """Arithmetic operations per second of the whole chip, over its best instruction.

        ``dtype`` restricts to instructions whose inputs have that element type.
        """
        rates = [
            i.ops * i.per_cycle * self.instances(i.unit or self.units[0].name) * self.clock_hz
            for i in self.instructions
            if i.operands and (dtype is None or all(o.dtype == dtype for o in i.operands if o.role == "in"))
        ]
        return max(rates, default=0.0)

    # --- variants ---------------------------------------------------------------------------

    def derive(self, **overrides: Any) -> Machine:
        """A checked copy with fields replaced.

        ``memories``, ``units`` and ``instructions`` may be mappings from a name to the fields that change:
        ``machine.derive(name="big", memories={"l2": {"bytes": 2 << 20}}, clock_hz=3e9)``.
        """
        known = {f.name for f in fields(self)}
        if unknown := set(overrides) - known:
            raise MachineError(f"machine {self.name} has no {', '.join(sorted(unknown))}", hint=f"fields: {', '.join(sorted(known))}")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for key, value in overrides.items():
            if key in ("memories", "units", "instructions", "states", "transfers") and isinstance(value, Mapping):
                value = self._with_changes(key, value)
            values[key] = value
        return Machine(values.pop("name"), **values)

    def _with_changes(self, key: str, changes: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
        items = getattr(self, key)
        for name, change in changes.items():
            found = self._find(key, name, items)
            if unknown := set(change) - {f.name for f in fields(found)}:
                raise MachineError(f"{type(found).__name__} {name} has no field {', '.join(sorted(unknown))}")
        return tuple(replace(i, **changes[i.name]) if i.name in changes else i for i in items)

    def available(self, features: Sequence[str] | frozenset[str]) -> tuple[Instruction, ...]:
        """The instructions whose run-time requirements are among ``features``."""
        present = frozenset(features)
        return tuple(i for i in self.instructions if not i.requires.missing(present))

    def describe(self) -> str:
        """The machine as indented text: memory tree, units, instructions, transfers, states."""
        from tilewright.hw.describe import describe

        return describe(self)

    @staticmethod
    def host() -> Machine:
        """The machine this process runs on, with the richest declared instruction set it supports."""
        from tilewright.hw.host import host

        return host()


def _qualified(i: Instruction, machine: str) -> Instruction:
    return replace(i, kernel=i.kernel.with_(instruction=f"{machine}/{i.name}"))
