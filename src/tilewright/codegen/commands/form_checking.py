"""Runs of loop forms, as the verifier of command programs sees them: numbers in bit fields, and what the hardware does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tilewright.codegen.commands.forms import room_of
from tilewright.codegen.commands.geometry import equal, walks
from tilewright.codegen.commands.program import Command, Pointer, Word
from tilewright.hw import Instruction, LoopForm, Machine, Part
from tilewright.util.errors import CodegenError

Error = Callable[[Command, str, str], CodegenError]


@dataclass(frozen=True, slots=True)
class Access:
    """What a run touches of a part's operand in main memory: so many elements from the byte ``offset`` of ``base`` on.

    ``stride`` is the distance of its rows in bytes, None for one row.
    """

    instruction: Instruction
    operand: str
    base: str
    offset: int
    elements: int
    stride: int | None


@dataclass
class FormChecker:
    """The runs of one form. ``error`` makes the exception for a command, a broken rule and a hint."""

    form: LoopForm
    machine: Machine
    error: Error
    #: What the words issued since the last run say, and where operands are.
    values: dict[str, int] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    issued: set[str] = field(default_factory=set)
    #: Rows and columns of sums that wait for a finish.
    pending: dict[str, int] | None = None

    def word(self, c: Command, word: Word, values: Mapping[str, int]) -> bool:
        """Notes what a word says; True for the last, which runs the form. CodegenError when an earlier one is missing."""
        self.values |= values
        self.bases |= {n: o.base for n, o in c.operands if isinstance(o, Pointer)}
        self.issued.add(word.encoding.name)
        last = word.encoding == self.form.words[-1]
        missing = [w.name for w in self.form.words if w.name not in self.issued]
        if last and missing:
            raise self.error(c, f"a run without {', '.join(missing)} before it", "every run needs all words of its form")
        return last

    def run(self, c: Command, state: Mapping[str, Mapping[str, int]]) -> list[Access]:
        """What the run reads and writes in main memory, after checking all else; the next run starts anew."""
        extents = self.extents(c)
        self.lines(c, extents)
        self.ways(c, extents)
        start, update, finish = (self.part(c, parts, extents, state) for parts in (self.form.starts, self.form.updates, self.form.finishes))
        sums = {a.name: extents[a.name] for a in self.form.starts[0].instruction.axes}
        if update is None:
            raise self.error(c, "its words say nothing that the form adds", "give the operands of one of its updates")
        if start is None and self.pending is None:
            raise self.error(c, "it adds to sums that no run started", "let the first run of a chain start them")
        if start is not None and self.pending is not None:
            raise self.error(c, "it starts new sums where those of the run before wait to be stored", "accumulate, or store them first")
        if self.pending is not None and self.pending != sums:
            raise self.error(c, f"it adds {sums} to sums of {self.pending}", "all runs of a chain work on one tile")
        self.pending = None if finish is not None else sums
        self.values, self.bases, self.issued = {}, {}, set()
        return [a for accesses in (start, update, finish) for a in accesses or ()]

    def extents(self, c: Command) -> dict[str, int]:
        out = {}
        sizes = dict(self.form.block)
        for axis in self.form.updates[0].instruction.extents:
            if axis not in sizes:
                out[axis] = self.values[f"{axis}_extent"]
                if out[axis] < 1:
                    raise self.error(c, f"axis {axis} has {out[axis]} iterations", "at least one")
                continue
            size, blocks, pad = sizes[axis], self.values[f"{axis}_blocks"], self.values[f"{axis}_pad"]
            if blocks < 1 or not 0 <= pad < size:
                raise self.error(c, f"axis {axis} has {blocks} blocks that lack {pad} of {size} elements", "at least one element of each")
            out[axis] = blocks * size - pad
        return out

    def lines(self, c: Command, extents: Mapping[str, int]) -> None:
        for name, lines in self.form.lines:
            taken, room = lines({**dict(self.form.idle), **self.values, **extents}), room_of(self.machine, name)
            if taken > room:
                raise self.error(c, f"it takes {taken} lines of {name}, a run may take {room}", "make its tile smaller and loop around it")

    def ways(self, c: Command, extents: Mapping[str, int]) -> None:
        """CodegenError where a run would work in a way that is more than its extents allow."""
        for name, way in self.form.ways:
            if self.values[name] > (most := way(extents)):
                raise self.error(c, f"its {name} is {self.values[name]}, its extents allow {most}", "set what they allow")

    def part(
        self, c: Command, parts: tuple[Part, ...], extents: Mapping[str, int], state: Mapping[str, Mapping[str, int]]
    ) -> list[Access] | None:
        """What the one of ``parts`` accesses that fields and operands stand for; None when that is none of them."""
        idle = dict(self.form.idle)
        fields = {n for p in parts for n, _ in p.fields}
        given = {o.name for p in parts for o in p.instruction.operands} & self.bases.keys()
        problem = None
        for p in parts:
            mine = {o.name: len(o.shape) for o in p.instruction.operands if o.shape and o.name != self.form.sums}
            same = all(self.values.get(n, idle.get(n)) == dict(p.fields).get(n, idle.get(n)) for n in fields)
            if not same or mine.keys() != given or any(rank == 1 and self.values.get(f"{n}_pitch") for n, rank in mine.items()):
                continue
            self.windows(c, p, extents)
            accesses = self.accesses(p, extents)
            problem = self.needs(c, p.instruction, accesses, state)
            if problem is None:
                return accesses
        if problem is not None:
            raise problem
        return None

    def accesses(self, part: Part, extents: Mapping[str, int]) -> list[Access]:
        out = []
        sized = part.instruction.kernel_for({a: n for a, n in self.own(part.instruction, extents).items() if n is not None})
        for b in sized.args:
            if b.name not in self.bases or b.name == self.form.sums:
                continue
            shape = [int(n or 0) for n in b.static_shape]
            for d, more in ((d, more) for o, d, more in part.around if o == b.name):
                shape[d] += more - self.values[f"{b.name}_before{d}"] - self.values[f"{b.name}_after{d}"]
            if min(shape) < 1:
                continue  # zeros alone
            pitch = self.values.get(f"{b.name}_pitch", 0)
            elements, step = shape[-1], pitch
            for d in range(len(shape) - 2, -1, -1):
                elements += (shape[d] - 1) * step
                step *= self.values.get(f"{b.name}_size{d}", 0)
            stride = pitch * b.dtype.nbytes if len(shape) > 1 and shape[-2] > 1 else None
            out.append(Access(part.instruction, b.name, self.bases[b.name], self.values[f"{b.name}.address"], elements, stride))
        return out

    def own(self, i: Instruction, extents: Mapping[str, int]) -> dict[str, int | None]:
        """The extents of a part's axes: those of the run, or what the words say of its window and of what it takes of an operand."""
        taken = {axis: self.values.get(f"{o}_extent{d}") for o, axes in walks(i).items() for d, axis in enumerate(axes) if axis is not None}
        said = {a.name: self.values.get(f"{a.name}_extent", taken.get(a.name)) for a in i.axes}
        said |= {a: said[b] for a in said for b in equal(i, a) if said[a] is None}
        return {a: extents.get(a, n) for a, n in said.items()}

    def windows(self, c: Command, part: Part, extents: Mapping[str, int]) -> None:
        """CodegenError where windows of the sums reach further than these and the zeros around them."""
        i, sums = part.instruction, self.form.sums
        own = self.own(i, extents)
        if wrong := [a.name for a in i.axes if own[a.name] is None or not a.rule.accepts(own[a.name] or 0)]:
            raise self.error(c, f"axis {wrong[0]} of {i.name} has {own[wrong[0]]} iterations", f"it takes {i.axis(wrong[0]).rule}")
        if not i.replaces:
            return
        walked = walks(self.form.starts[0].instruction)[sums]
        reach = next(b.static_shape for b in i.kernel_for({a: n for a, n in own.items() if n is not None}).args if b.name == sums)
        for d, axis in enumerate(walked):
            before, after = (self.values.get(f"{sums}_{side}{d}", 0) for side in ("before", "after"))
            there = extents[str(axis)]
            if int(reach[d] or 0) > there + before + after or ((before or after) and (sums, d) not in i.around):
                rule = f"its windows go over {reach[d]} sums along {axis}, of {there} with {before} and {after} zeros around them"
                raise self.error(c, rule, "set what is taken, and the pads, to what the tile has")

    def needs(self, c: Command, i: Instruction, accesses: list[Access], state: Mapping[str, Mapping[str, int]]) -> CodegenError | None:
        """What is wrong with the state that a part needs."""
        pitches = {f"{a.operand}.stride": a.stride for a in accesses}
        for need in i.needs:
            now = state.get(need.state)
            if now is None:
                return self.error(c, f"state {need.state} was never set", f"issue {self.machine.state(need.state).setter} before")
            for name, value in need.values:
                wanted = pitches.get(value) if isinstance(value, str) else value
                if wanted is not None and now[name] != wanted:
                    return self.error(c, f"state {need.state} has {name} = {now[name]}, it needs {wanted}", "set it before")
        return None
