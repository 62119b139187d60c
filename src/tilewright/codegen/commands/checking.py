"""The verifier of command programs: independent of what generated them, it walks every command with the numbers it has when run.

Refused are words the machine lacks, operands of other memories than declared, extents and addresses out of range, values that do not
fit their bits, commands whose state is not set or set to something their declaration excludes, words of one execution that do not
follow each other or disagree, elements of lines and of the program's own arrays read before anything wrote them, results that nothing
reads, and main memory that host and machine, or two controllers, touch without a fence between, or that is still written at the end.

What passes computes something definite: it does not depend on what memories hold at first. Whether it is what was meant is for runs to
show: a tile of the right size in the wrong place may pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import CodeType

import numpy as np

from tilewright.codegen.commands.contents import Contents
from tilewright.codegen.commands.fences import unordered
from tilewright.codegen.commands.form_checking import FormChecker
from tilewright.codegen.commands.geometry import lines_read, walked, walks, windows_problem
from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Let, Loop, Operand, Pointer, Program, Word, words
from tilewright.hw import Instruction, Machine, RoCC, Steps
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr
from tilewright.ir.printer import expr_text
from tilewright.util.errors import CodegenError


def check(program: Program, machine: Machine) -> None:
    """Raises CodegenError at the first command, in the order of execution, that breaks a rule; the message has its number and text."""
    if program.machine != machine.name:
        raise CodegenError(f"program {program.name} is for {program.machine}, not for {machine.name}", hint="load the right machine")
    checker = _Checker(program, machine)
    checker.block(program.body, {})
    if waiting := [f.form.name for f in checker.forms.values() if f.pending is not None]:
        raise CodegenError(f"program {program.name} ends with sums of {', '.join(waiting)} that no run stored", hint="finish the chain")
    if checker.begun is not None:
        begun = checker.begun[0]
        message = f"program {program.name} ends after {begun.instruction.name}.{begun.encoding.name}"
        raise CodegenError(message, hint="issue the words that follow it")
    if checker.writing:
        message = f"program {program.name} ends while commands may still write {', '.join(sorted(checker.writing))}"
        raise CodegenError(message, hint="put a fence() at the end")
    for memory, results in checker.results.items():
        if results.any():
            message = f"program {program.name} ends with a result in line {int(results.argmax())} of {memory} that nothing has read"
            raise CodegenError(message, hint="store it, or leave out what computes it")


@dataclass
class _Checker:
    program: Program
    machine: Machine
    number: int = 0
    state: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Arrays that commands under way read or write.
    reading: set[str] = field(default_factory=set)
    writing: set[str] = field(default_factory=set)
    #: What the unit holds since the last full execution: an instruction, and the tile of its held operand.
    held: tuple[str, tuple[int, ...]] | None = None
    #: The last word of an instruction of several, with its values, while others of them have to follow.
    begun: tuple[Word, Mapping[str, int]] | None = None
    #: Compiled expressions by identity (which the kept expression protects from reuse).
    codes: dict[int, tuple[Expr, CodeType]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.words = words(self.machine)
        self.arrays = {b.name: b for b in self.program.arrays}
        self.contents = Contents(self.program.temps)
        self.memories = {m.name: m for m in self.machine.memories}
        self.forms = {f.name: FormChecker(f, self.machine, self.error) for f in self.machine.forms}
        #: Elements that are written of each line, from its start.
        self.written = {m.name: np.zeros((m.bytes or 0) // m.line, np.int32) for m in self.machine.memories if m.bytes}
        #: Lines with something computed that nothing has read yet.
        self.results = {name: np.zeros(len(lines), bool) for name, lines in self.written.items()}

        #: Lines that moves under way may still replace; they are begun in order, but may end in another.
        self.filling = {name: np.zeros(len(lines), bool) for name, lines in self.written.items()}
        self.unordered = unordered(self.machine)

    def block(self, items: tuple[Item, ...], env: Mapping[str, int]) -> None:
        now = dict(env)
        for i in items:
            match i:
                case Command():
                    self.number += 1
                    self.command(i, now)
                case Let():
                    now[i.var] = self.value(i.value, now, i)
                case Loop():
                    for n in range(self.value(i.lo, now, i), self.value(i.hi, now, i), i.step):
                        self.block(i.body, {**now, i.var: n})
                case Branch():
                    self.block(i.then if self.value(i.cond, now, i) else i.orelse, now)
                case Fence():
                    self.reading, self.writing = set(), set()
                    for lines in self.filling.values():
                        lines[:] = False
                case Host():
                    self.host(i, now)

    # Values

    def value(self, e: Expr, env: Mapping[str, int], where: Item) -> int:
        known = self.codes.get(id(e))
        if known is None:
            known = self.codes[id(e)] = e, compile(expr_text(e), "<operand>", "eval")
        try:
            return int(eval(known[1], {"index": int, "where": lambda c, a, b: a if c else b}, dict(env)))
        except NameError as error:
            raise self.error(where, f"uses {error.name}, which no loop around it defines", "define it before") from None

    def error(self, i: Item, rule: str, hint: str) -> CodegenError:
        text = str(i).splitlines()[0]
        return CodegenError(f"program {self.program.name}, command {self.number}, `{text}`: {rule}", hint=hint)

    # The host

    def host(self, i: Host, env: Mapping[str, int]) -> None:
        reads, writes = st.read_buffers(i.kernel.body), st.written_buffers(i.kernel.body)
        for b, name in zip(i.kernel.args, i.args, strict=True):
            if name not in self.arrays:
                raise self.error(i, f"{name} is no array of the program", f"arrays: {', '.join(self.arrays)}")
            late = name in self.writing or (b.name in writes and name in self.reading)
            if late and b.name in reads | writes:
                raise self.error(i, f"the host touches {name} while commands may still be using it", "put a fence() before")
        lost = self.contents.host(i.kernel, tuple(self.value(e, env, i) for e in i.sizes), i.args)
        if lost is not None:
            raise self.error(i, f"the host reads elements of {lost} that nothing has written", "write them before")

    # Commands

    def command(self, c: Command, env: Mapping[str, int]) -> None:
        word = self.words.get(c.word)
        if word is None:
            raise self.error(c, f"{self.machine.name} has no word {c.word!r}", f"it has: {', '.join(self.words)}")
        values: dict[str, int] = {}
        tiles: dict[str, tuple[int, int, int]] = {}
        for name, o in c.operands:
            values |= self.operand(c, word.instruction, name, o, env, tiles)
        for b in (*word.encoding.rs1, *word.encoding.rs2):
            if isinstance(b.value, str):
                if b.value not in values:
                    raise self.error(c, f"its word needs {b.value}", "give that operand")
                if not 0 <= values[b.value] < 1 << b.width and not b.value.endswith(".address"):
                    raise self.error(c, f"{b.value} = {values[b.value]} does not fit {b.width} bits", "correct the value")
        if word.instruction.sets is not None:
            self.state[word.instruction.sets] = values
            return
        if word.form is not None:
            self.form(c, word, values)
            return
        settings = self.settings(c, word.instruction)
        self.touch(c, word, values, settings, tiles)

    def form(self, c: Command, word: Word, values: Mapping[str, int]) -> None:
        """A word of a loop form. A run takes lines of its choice: nothing that was in its memories is there afterwards."""
        assert word.form is not None
        checker = self.forms[word.form.name]
        if not checker.word(c, word, values):
            return
        self.held = None
        for a in checker.run(c, self.state):
            write = a.instruction.operand(a.operand).role != "in"
            self.outside(c, a.instruction, a.operand, a.base, a.offset, {}, (1, a.elements), write)
        for name in word.form.clobbers:
            self.state.pop(name, None)
        for name, _ in word.form.lines:
            if self.results[name].any():
                lost = int(self.results[name].argmax())
                raise self.error(c, f"it takes line {lost} of {name}, with a result that nothing has read", "store it before")
            self.written[name][:] = 0

    def operand(
        self, c: Command, i: Instruction, name: str, o: Operand, env: Mapping[str, int], tiles: dict[str, tuple[int, int, int]]
    ) -> dict[str, int]:
        if isinstance(o, Expr):
            number = self.value(o, env, c)
            return {name: number, f"{name}.address": number}
        declared = next((x for x in i.operands if x.name == name), None)
        if declared is None:
            raise self.error(c, f"{i.name} has no operand {name}", f"it has: {', '.join(x.name for x in i.operands) or 'none'}")
        if isinstance(o, Pointer):
            if declared.memory != self.machine.main_memory.name:
                raise self.error(
                    c, f"operand {name} is in {declared.memory}, not in main memory", f"{declared.memory}[line, rows, columns]"
                )
            if o.base not in self.arrays:
                raise self.error(c, f"{o.base} is no array of the program", f"arrays: {', '.join(self.arrays)}")
            return {f"{name}.address": self.value(o.offset, env, c)}
        if declared.memory != o.memory:
            raise self.error(c, f"operand {name} is in {declared.memory}, not in {o.memory}", "use a tile of that memory")
        row, rows, cols = (self.value(e, env, c) for e in (o.row, o.rows, o.cols))
        most = (prod(declared.shape[:-1]), *declared.shape[-1:])
        if not (1 <= rows <= most[0] and 1 <= cols <= most[1]):
            raise self.error(c, f"operand {name} has {rows} rows of {cols}, it takes at most {most[0]} of {most[1]}", "cut it into tiles")
        tiles[name] = row, rows, cols
        return {f"{name}.address": row, f"{name}.rows": rows, f"{name}.cols": cols}

    def settings(self, c: Command, i: Instruction) -> dict[str, int]:
        """What the state says about the quantities of the operands, after checking the fields that must have one value."""
        out: dict[str, int] = {}
        for need in i.needs:
            now = self.state.get(need.state)
            if now is None:
                raise self.error(c, f"state {need.state} was never set", f"issue {self.machine.state(need.state).setter} before")
            for name, wanted in need.values:
                if isinstance(wanted, str):
                    out[wanted] = now[name]
                elif now[name] != wanted:
                    raise self.error(c, f"state {need.state} has {name} = {now[name]}, it needs {wanted}", "set it before")
        return out

    def touch(
        self, c: Command, word: Word, values: Mapping[str, int], settings: Mapping[str, int], tiles: Mapping[str, tuple[int, int, int]]
    ) -> None:
        i, emit = word.instruction, word.instruction.emit
        again = isinstance(emit, Steps) and word.encoding in emit.again
        sources = [(n, o) for n, o in c.operands if not isinstance(o, Expr) and i.operand(n).role == "in"]
        results = [(n, o) for n, o in c.operands if not isinstance(o, Expr) and i.operand(n).role != "in"]
        named = {b.value for b in (*word.encoding.rs1, *word.encoding.rs2)}
        shape = next(((rows, cols) for rows, cols in ((t[1], t[2]) for n, t in tiles.items())), (1, 1))
        for n, t in tiles.items():
            if problem := windows_problem(i, n, t, settings):
                raise self.error(c, *problem)
        self.agree(c, i, {**(self.begun[1] if self.begun else {}), **values})
        if isinstance(emit, Steps):
            self.follow(c, word, emit.again if again else emit.steps, values)
            if emit.held in tiles:
                if again and self.held != (i.name, tiles[emit.held]):
                    raise self.error(c, f"{emit.held} is not what the unit holds", "execute it once with the words that load it")
                self.held = i.name, tiles[emit.held]
        for n, o in sources:
            if isinstance(o, Pointer):
                self.outside(c, i, n, o.base, values[f"{n}.address"], settings, (walked(i, n, settings, shape[0]), shape[1]), write=False)
            elif f"{n}.address" in named:
                self.inside(c, i, n, tiles[n], settings, write=False)
        for n, o in results:
            if isinstance(o, Pointer):
                self.outside(c, i, n, o.base, values[f"{n}.address"], settings, (walked(i, n, settings, shape[0]), shape[1]), write=True)
            elif f"{n}.address" in named:
                if values.get("accumulate", 0) or (i.operand(n).role == "inout" and "accumulate" not in values):
                    self.inside(c, i, n, tiles[n], settings, write=False)
                self.inside(c, i, n, tiles[n], settings, write=True)

    def follow(self, c: Command, word: Word, steps: tuple[RoCC, ...], values: Mapping[str, int]) -> None:
        """The words of one execution come in order, nothing else of the unit in between, and agree about their operands."""
        at = steps.index(word.encoding)
        before = self.begun[0] if self.begun else None
        if at == 0 and before is not None:
            raise self.error(c, f"{before.instruction.name}.{before.encoding.name} came before it and did nothing", "issue what follows it")
        if at > 0:
            wanted = steps[at - 1]
            if self.begun is None or before is None or before.encoding != wanted or before.instruction != word.instruction:
                raise self.error(c, f"no {word.instruction.name}.{wanted.name} came right before it", "issue the words of it in order")
            if differs := [n for n, v in values.items() if self.begun[1].get(n, v) != v]:
                raise self.error(c, f"its {differs[0]} is not that of {wanted.name}", "the words of one execution name the same operands")
            values = {**self.begun[1], **values}
        self.begun = (word, values) if at + 1 < len(steps) else None

    def agree(self, c: Command, i: Instruction, values: Mapping[str, int]) -> None:
        """Tiles that one axis of the instruction walks have one extent along it."""
        first: dict[str, str] = {}
        for name, axes in walks(i).items():
            for axis, what in zip(axes[-2:], ("rows", "cols")[-len(axes) :], strict=True):
                mine = f"{name}.{what}"
                if axis is None or mine not in values:
                    continue
                other = first.setdefault(axis, mine)
                if values[other] != values[mine]:
                    raise self.error(c, f"{mine} is {values[mine]}, {other} is {values[other]}: both are along {axis}", "make them equal")

    def inside(self, c: Command, i: Instruction, name: str, tile: tuple[int, int, int], settings: Mapping[str, int], write: bool) -> None:
        """Reads a tile, or writes it: a result, if the instruction has made it of other tiles."""
        operand = i.operand(name)
        computed = write and any(o.role == "in" and o.memory in self.written for o in i.operands)
        memory = self.memories[operand.memory]
        row, rows, cols = tile
        blocks = -(-cols * operand.dtype.nbytes // memory.line)
        apart, step = settings.get(f"{name}.block_stride", operand.shape[0]), settings.get(f"{name}.stride", 1)
        if step < 1:
            raise self.error(c, f"its rows in {memory.name} lie {step} lines apart", "set a stride of at least 1")
        if blocks > 1 and apart < (rows - 1) * step + 1:
            raise self.error(c, f"its blocks of {rows} rows overlap, {apart} lines apart", "set a larger block stride")
        width = memory.line // operand.dtype.nbytes
        written = self.written[operand.memory]
        for block in range(blocks):
            first, elements = row + block * apart, min(cols - block * width, width)
            last = first + (rows - 1) * step
            if row < 0 or last >= len(written):
                raise self.error(
                    c, f"lines {first} to {last} lie outside {memory.name}, which has {len(written)}", "check addresses and strides"
                )
            every = (written, self.results[operand.memory], self.filling[operand.memory])
            lines, results, filling = (x[first : last + 1 : step] for x in every)
            if i.name in self.unordered and operand.role == "inout" and filling.any():
                late = first + int(filling.argmax()) * step
                raise self.error(
                    c, f"adds to line {late} of {memory.name}, which a move under way may still replace", "put a fence() before"
                )
            filling[:] = write and i.name in self.unordered and operand.role == "out"
            if write:
                if results.any():
                    lost = first + int(results.argmax()) * step
                    raise self.error(c, f"overwrites the result in line {lost} of {memory.name}, which nothing has read", "use it before")
                results[:] = computed
                np.maximum(lines, elements, out=lines)
                continue
            read = lines_read(i, name, rows, settings)
            results[read] = False
            if (short := (lines < elements) & read).any():
                missing = first + int(short.argmax()) * step
                rule = f"reads line {missing} of {memory.name}, which nothing has written"
                if written[missing]:
                    rule = f"reads {elements} elements of line {missing} of {memory.name}, of which {written[missing]} are written"
                raise self.error(c, rule, "load or compute it before")

    def outside(
        self,
        c: Command,
        i: Instruction,
        name: str,
        base: str,
        offset: int,
        settings: Mapping[str, int],
        shape: tuple[int, int],
        write: bool,
    ) -> None:
        operand, array = i.operand(name), self.arrays[base]
        if operand.dtype != array.dtype:
            raise self.error(c, f"{base} holds {array.dtype}, operand {name} {operand.dtype}", "use the word for that type")
        rows = shape[0] if len(operand.shape) > 1 else 1
        stride = settings.get(f"{name}.stride", 0)
        width = shape[1] * operand.dtype.nbytes
        if offset % operand.dtype.nbytes or (rows > 1 and stride % operand.dtype.nbytes):
            rule = f"byte {offset} of {base}, with rows {stride} bytes apart, does not suit elements of {operand.dtype.nbytes} bytes"
            raise self.error(c, rule, "align offset and stride")
        last = offset + (rows - 1) * stride + width
        if offset < 0 or last > array.nbytes:
            raise self.error(
                c, f"bytes {offset} to {last} lie outside {base}, which has {array.nbytes}", "check offset, stride and extents"
            )
        if write and rows > 1 and stride < width:
            raise self.error(c, f"its rows of {width} bytes overlap in {base}, {stride} bytes apart", "set a wider stride")
        if base in self.writing and not write:
            raise self.error(c, f"reads {base}, to which commands under way may still write", "put a fence() before")
        if write and base in self.reading:
            raise self.error(c, f"writes {base}, which commands under way may still read", "put a fence() before")
        if write:
            self.writing.add(base)
            self.contents.write(base, offset, rows, stride, width)
            return
        self.reading.add(base)
        if self.contents.undefined(base, offset, rows, stride, width):
            raise self.error(c, f"reads bytes of {base}, {offset} to {last}, that nothing has written", "write them before")
