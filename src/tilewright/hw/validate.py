"""Checks that a machine's declaration does not contradict itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from tilewright.hw.constraint import Mantissa, ValueRange
from tilewright.hw.emit import PTX, RoCC, Steps
from tilewright.hw.footprint import accessed
from tilewright.hw.form import LoopForm
from tilewright.hw.instruction import Instruction
from tilewright.hw.memory import CHIP, KINDS, MAIN, Memory
from tilewright.util.errors import Location, MachineError

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine


def validate(m: Machine) -> None:
    """Raises MachineError naming the object, the rule and the way out at the first contradiction."""
    if not m.name or any(c in m.name for c in "/ "):
        _fail(m, f"machine name {m.name!r} must be non-empty, without '/' or blanks")
    if not m.clock_hz > 0:
        _fail(m, f"clock_hz is {m.clock_hz}: it must be positive")
    _memories(m)
    _units(m)
    _unique(m, "state", m.states)
    _unique(m, "instruction", m.all_instructions)
    for i in m.all_instructions:
        _instruction(m, i)
    _unique(m, "loop form", m.forms)
    for f in m.forms:
        _form(m, f)
    _transfers(m)
    _states(m)


def _fail(m: Machine, message: str, hint: str | None = None, loc: Location | None = None) -> NoReturn:
    raise MachineError(f"machine {m.name}: {message}", hint=hint, location=loc or m.loc)


def _unique(m: Machine, what: str, items: Iterable[object]) -> None:
    seen: set[str] = set()
    for item in items:
        name = item.name  # type: ignore[attr-defined]
        if name in seen:
            _fail(m, f"two {what} declarations are called {name!r}", "rename one", getattr(item, "loc", None))
        seen.add(name)


def _names(items: Iterable[object]) -> str:
    return ", ".join(i.name for i in items) or "none"  # type: ignore[attr-defined]


# --- memories and units ---------------------------------------------------------------------


def _memories(m: Machine) -> None:
    _unique(m, "memory", m.memories)
    known = {mem.name: mem for mem in m.memories}
    roots = [mem.name for mem in m.memories if mem.kind == MAIN]
    if len(roots) != 1:
        _fail(m, f"exactly one memory must be of kind {MAIN!r}, found {len(roots)}", "it holds kernel arguments; others name it as parent")
    for mem in m.memories:
        _memory(m, mem, known)
        _walk_to_main(m, mem, known)


def _memory(m: Machine, mem: Memory, known: dict[str, Memory]) -> None:
    what = f"memory {mem.name}"
    if mem.kind not in KINDS:
        _fail(m, f"{what} has kind {mem.kind!r}", f"kinds: {', '.join(KINDS)}")
    if mem.bytes is None and mem.kind != MAIN:
        _fail(m, f"{what} has no capacity", "only main memory may be unlimited; give bytes=")
    if mem.bytes is not None and mem.bytes <= 0:
        _fail(m, f"{what} has {mem.bytes} bytes: a capacity must be positive")
    if mem.bandwidth_unit not in ("B/cycle", "B/s"):
        _fail(m, f"{what} gives its bandwidth in {mem.bandwidth_unit!r}", "use 'B/cycle' or 'B/s'")
    for field in ("bandwidth", "latency", "energy", "level"):
        if getattr(mem, field) < 0:
            _fail(m, f"{what} has {field} {getattr(mem, field)}: it must not be negative")
    for field in ("line", "alignment", "banks", "buffers"):
        if getattr(mem, field) < 1:
            _fail(m, f"{what} has {field} {getattr(mem, field)}: it must be at least 1")
    if mem.per != CHIP and mem.per not in {u.name for u in m.units}:
        _fail(m, f"{what} exists per {mem.per!r}, which is not a unit", f"units: {_names(m.units)}, or 'chip'")
    if (mem.parent is None) != (mem.kind == MAIN):
        _fail(m, f"{what} of kind {mem.kind} has parent {mem.parent}", "every memory except main names the memory it is filled from")
    if mem.parent is not None and mem.parent not in known:
        _fail(m, f"{what} names parent {mem.parent!r}, which is not declared", f"memories: {_names(m.memories)}")


def _walk_to_main(m: Machine, mem: Memory, known: dict[str, Memory]) -> None:
    seen = [mem.name]
    while mem.parent is not None:
        if mem.parent in seen:
            _fail(m, f"the memory hierarchy has a cycle: {' -> '.join([*seen, mem.parent])}", "parents must lead to main memory")
        if mem.parent not in known:
            return  # reported when that memory is checked itself
        outer = known[mem.parent]
        if outer.level <= mem.level:
            _fail(m, f"memory {mem.name} at level {mem.level} is filled from {outer.name} at level {outer.level}", "levels grow outwards")
        seen.append(outer.name)
        mem = outer


def _units(m: Machine) -> None:
    _unique(m, "unit", m.units)
    known = {u.name: u for u in m.units}
    if not m.units:
        _fail(m, "no unit is declared", 'give at least units=[Unit("core", 1)]')
    for u in m.units:
        if not isinstance(u.count, int) or u.count < 1:
            _fail(m, f"unit {u.name} has count {u.count!r}: it must be an int >= 1")
        if u.memory is not None and u.memory not in {mem.name for mem in m.memories}:
            _fail(m, f"unit {u.name} shares memory {u.memory!r}, which is not declared", f"memories: {_names(m.memories)}")
        seen = [u.name]
        while u.parent is not None:
            if u.parent not in known:
                _fail(m, f"unit {u.name} is inside {u.parent!r}, which is not declared", f"units: {_names(m.units)}")
            if u.parent in seen:
                _fail(m, f"units contain each other: {' -> '.join([*seen, u.parent])}")
            seen.append(u.parent)
            u = known[u.parent]


# --- instructions, transfers, states --------------------------------------------------------


def _instruction(m: Machine, i: Instruction) -> None:
    what = f"instruction {i.name}"
    known = {mem.name: mem for mem in m.memories}
    for o in i.operands:
        if o.memory not in known:
            _fail(m, f"{what}: operand {o.name} is in memory {o.memory!r}, which is not declared", f"memories: {_names(m.memories)}", i.loc)
        capacity = known[o.memory].bytes
        if capacity is not None and o.nbytes > capacity:
            _fail(m, f"{what}: operand {o.name} has {o.nbytes} bytes but {o.memory} holds {capacity}", "shrink the tile", i.loc)
    for name in known:
        total = sum(o.nbytes for o in i.operands if o.memory == name)
        if (capacity := known[name].bytes) is not None and total > capacity:
            _fail(m, f"{what}: its operands in {name} take {total} bytes, {name} holds {capacity}", "shrink the tile", i.loc)
    if not i.per_cycle > 0 or i.latency < 0 or i.energy < 0:
        _fail(m, f"{what}: per_cycle must be positive, latency and energy not negative", loc=i.loc)
    if i.unit is not None and i.unit not in {u.name for u in m.units}:
        _fail(m, f"{what} runs on unit {i.unit!r}, which is not declared", f"units: {_names(m.units)}", i.loc)
    _bounds(m, i)
    _constraints(m, i)
    _needs(m, i)
    for word in (*i.emit.steps, *i.emit.again) if isinstance(i.emit, Steps) else (i.emit,):
        if isinstance(word, RoCC):
            _word(m, i, word)
    if isinstance(i.emit, PTX) and (unknown := {f.operand for f in i.emit.fragments} - {o.name for o in i.operands}):
        _fail(m, f"{what} emits registers of {', '.join(sorted(unknown))}, which are no operands", loc=i.loc)


def _word(m: Machine, i: Instruction, word: RoCC) -> None:
    for register in (word.rs1, word.rs2):
        taken = 0
        for f in register:
            mask = (1 << f.width) - 1 << f.lo
            if f.lo < 0 or f.width < 1 or mask >> 64 or mask & taken:
                where = f"bits [{f.lo + f.width - 1}:{f.lo}] of {f.value}"
                _fail(m, f"instruction {i.name}: {where} lie outside the 64-bit register or overlap another field", loc=i.loc)
            taken |= mask


def _form(m: Machine, f: LoopForm) -> None:
    """What the words say is what the parts have, and all parts sum up in one memory."""
    for p in f.parts:
        _needs(m, p.instruction)
        operands = {o.name: o for o in p.instruction.operands}
        if f.sums not in operands:
            _fail(m, f"loop form {f.name}: its part {p.instruction.name} has no operand {f.sums}", "all parts work on the sums")
        outside = [o.name for n, o in operands.items() if n != f.sums and o.shape and o.memory != m.main_memory.name]
        if outside:
            _fail(m, f"loop form {f.name}: operands {', '.join(outside)} of {p.instruction.name} are not in {m.main_memory.name}")
    for word in f.words:
        _word(m, f.instruction, word)
    fields = {n for n, _ in (*f.idle, *f.ways)} | {f"{n}_{what}" for n, _ in f.block for what in ("blocks", "pad")}
    fields |= {f"{a.name}_extent" for p in f.parts for a in p.instruction.axes}
    for p in f.parts:
        for o in p.instruction.operands:
            fields |= {f"{o.name}.address", f"{o.name}_pitch", *(f"{o.name}_size{d}" for d in range(1, len(o.shape)))}
            fields |= {f"{o.name}_extent{d}" for d in range(len(o.shape))}
        fields |= {f"{n}_{what}{d}" for n, d, _ in p.around for what in ("before", "after")}
    unknown = [b.value for b in f.bits if isinstance(b.value, str) and b.value not in fields]
    if unknown:
        _fail(
            m,
            f"loop form {f.name}: nothing says what {', '.join(map(str, unknown))} is",
            "name it in idle or ways, or after an operand or axis",
        )
    if lost := set(f.clobbers) - {s.name for s in m.states}:
        _fail(m, f"loop form {f.name} clobbers {', '.join(sorted(lost))}, which is no state")
    if wrong := [n for n, _ in f.lines if n not in {mem.name for mem in m.memories}]:
        _fail(m, f"loop form {f.name}: it takes lines of {', '.join(wrong)}, which is not declared")


def _bounds(m: Machine, i: Instruction) -> None:
    """Every element the body touches at its largest extents lies inside the operand's shape."""
    shapes = {o.name: o.shape for o in i.operands}
    for name, reach in accessed(i.kernel).items():
        for d, ((lo, hi), extent) in enumerate(zip(reach, shapes.get(name, ()), strict=False)):
            if lo < 0 or hi >= extent:
                outside = f"accesses {lo}..{hi} in dimension {d} of {name}, which has {extent} elements"
                _fail(m, f"instruction {i.name} {outside}", "enlarge the operand or shrink the axis", i.loc)


def _constraints(m: Machine, i: Instruction) -> None:
    for c in i.constraints:
        if isinstance(c, ValueRange) and not (dtype := i.operand(c.operand).dtype).is_float:
            lo, hi = dtype.range
            if c.lo < lo or c.hi > hi:
                _fail(m, f"instruction {i.name}: {c} exceeds what {dtype} can hold ({lo}..{hi})", loc=i.loc)
        if isinstance(c, Mantissa) and not i.operand(c.operand).dtype.is_float:
            _fail(m, f"instruction {i.name}: {c} on an operand that is not floating point", loc=i.loc)


def _needs(m: Machine, i: Instruction) -> None:
    states = {s.name: s for s in m.states}
    for need in i.needs:
        if need.state not in states:
            _fail(m, f"instruction {i.name} needs state {need.state!r}, which is not declared", f"states: {_names(m.states)}", i.loc)
        for name, value in need.values:
            dtype = states[need.state].field_type(name)
            if dtype is None:
                _fail(m, f"instruction {i.name} needs field {name!r} of state {need.state}, which has no such field", loc=i.loc)
            if isinstance(value, str):
                owner, _, what = value.partition(".")
                (i.axis if what == "extent" else i.operand)(owner)
            elif not dtype.is_float and not dtype.range[0] <= value <= dtype.range[1]:
                _fail(m, f"instruction {i.name} needs {need.state}.{name} = {value}, which {dtype} cannot hold", loc=i.loc)
    if i.sets is not None and i.sets not in states:
        _fail(m, f"instruction {i.name} sets state {i.sets!r}, which is not declared", f"states: {_names(m.states)}", i.loc)


def _transfers(m: Machine) -> None:
    known = {mem.name for mem in m.memories}
    for t in m.transfers:
        for end in (t.src, t.dst):
            if end not in known:
                _fail(m, f"transfer {t.name} uses memory {end!r}, which is not declared", f"memories: {_names(m.memories)}")
        if t.granularity < 1 or (t.most is not None and t.most < t.granularity):
            _fail(m, f"transfer {t.name}: granularity {t.granularity} and largest move {t.most} bytes do not fit together")
        if t.latency < 0 or t.bandwidth < 0 or t.energy < 0:
            _fail(m, f"transfer {t.name}: latency, bandwidth and energy must not be negative")


def _states(m: Machine) -> None:
    for s in m.states:
        setters = [i for i in m.all_instructions if i.name == s.setter]
        if not setters:
            way_out = f"declare @instruction(sets={s.name!r}) def {s.setter}(): ..."
            _fail(m, f"state {s.name} has setter {s.setter!r}, which is not an instruction", way_out)
        if setters[0].sets != s.name:
            _fail(m, f"instruction {s.setter} is the setter of state {s.name} but sets {setters[0].sets}", f"give it sets={s.name!r}")
        for what, values in (("resets", s.reset), ("idles", s.idle)):
            for name, value in values:
                if (dtype := s.field_type(name)) is None or not dtype.range[0] <= value <= dtype.range[1]:
                    _fail(m, f"state {s.name} {what} {name} to {value}, which is no value of its fields")
