"""Scheduled kernels to command programs.

Copies into and out of memories that only transfers fill become the machine's moves, calls become its words, loops and guards stay, and
what touches main memory alone is left to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tilewright.codegen.commands.fences import fenced
from tilewright.codegen.commands.first import overwriting
from tilewright.codegen.commands.form_kernels import Use
from tilewright.codegen.commands.forms import formed
from tilewright.codegen.commands.operands import Placed, in_lines, in_main_memory
from tilewright.codegen.commands.ordering import ordered
from tilewright.codegen.commands.pipelining import pipelined, substituted
from tilewright.codegen.commands.placing import in_blocks, managed, place
from tilewright.codegen.commands.program import Branch, Command, Host, Item, Loop, Operand, Program, Tile, Word, words
from tilewright.codegen.commands.running import run
from tilewright.codegen.commands.setting import Needed, configure, merged
from tilewright.hw import Instruction, Machine, RoCC, Steps
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr
from tilewright.ir.simplify import Simplifier, scope_of, simplify
from tilewright.schedule.guards import started
from tilewright.schedule.moves import Move, moves
from tilewright.schedule.unify import Chain, chain_of
from tilewright.util.errors import CodegenError


def generate(kernel: st.Kernel, machine: Machine, *, pipeline: bool = True, forms: Sequence[str] = ()) -> Program:
    """The command program of a scheduled ``kernel`` whose sizes are numbers.

    With ``pipeline`` moves run ahead of and behind the computations, as far as the buffers have two places each. Tiles that one of
    the machine's loop ``forms`` does become runs of it, which the hardware unrolls.

    CodegenError names the statement that no instruction of ``machine`` does, the operand that does not lie as its word demands, or
    the buffers that do not fit their memory; or why ``forms`` are of no use.
    """
    if kernel.sizes:
        raise CodegenError(
            f"kernel {kernel.name} has the sizes {', '.join(v.name for v in kernel.sizes)}",
            hint=f"bind them first: specialize(kernel, {kernel.sizes[0].name}=64)",
        )
    known = words(machine)
    kernel = simplify(kernel)
    uses: Mapping[str, Use] = {}
    if forms:
        found = formed(kernel, machine, forms)
        kernel, uses = found.kernel, found.uses
    try:
        return _generated(in_blocks(kernel, machine), machine, known, pipeline, uses)
    except CodegenError:  # rows that start inside a block, or too little room
        return _generated(kernel, machine, known, pipeline, uses)


def _generated(kernel: st.Kernel, machine: Machine, known: Mapping[str, Word], pipeline: bool, uses: Mapping[str, Use]) -> Program:
    lowering = _Lowering(kernel, machine, uses)
    items = lowering.block(kernel.body)
    if pipeline:
        memories = {b.name: b.memory for b in st.allocated(kernel)}
        items = pipelined(items, known, lowering.places, {n: memories[n] for n in lowering.places}, lowering.fixed)
    body = configure(items, machine)
    if pipeline:
        body = ordered(body, machine, known)
    return Program(kernel.name, machine.name, kernel.args, fenced(body, machine, known), tuple(lowering.temps.values()))


def _reduction(stmts: Sequence[st.Stmt]) -> Chain | None:
    """Two statements of which one starts what the other reduces, as one fresh reduction."""
    return started(chain_of(stmts[0]), chain_of(stmts[1])) if len(stmts) == 2 else None


@dataclass
class _Lowering:
    kernel: st.Kernel
    machine: Machine
    #: What calls of loop forms are, by the name of the kernel called.
    uses: Mapping[str, Use] = field(default_factory=dict)
    #: By state: what the moves chosen so far need of it, so that moves that differ use different ones.
    chosen: dict[str, dict[str, Expr]] = field(default_factory=dict)
    #: Calls (by identity) that may replace their result, and the condition under which they do: 0 there, 1 elsewhere.
    adds: dict[int, Expr] = field(default_factory=dict)
    hosts: int = 0
    #: Arrays in main memory that several parts of the program share.
    temps: dict[str, Buffer] = field(default_factory=dict)
    #: The loops around the present statement, and memories with moves of buffers that are older than an iteration of those.
    loops: list[str] = field(default_factory=list)
    fixed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.inside = managed(self.machine)
        self.arguments = {b.name for b in self.kernel.args}
        self.places = place(self.kernel, self.machine)
        self.scope: Simplifier = scope_of(self.kernel)

    # Statements

    def block(self, b: st.Block) -> tuple[Item, ...]:
        out: list[Item] = []
        waiting: list[st.Stmt] = []
        fresh: set[int] = set()
        for n, s in enumerate(b.stmts):
            if n in fresh:
                continue  # done with what starts it
            if isinstance(s, st.Alloc) and (s.buffer.memory in self.inside or self._is_shared(s, b.stmts[n + 1 :])):
                continue
            reduced = _reduction(b.stmts[n : n + 2])
            reduced = None if reduced is not None and self._for_host(b.stmts[n + 1]) else reduced
            if reduced is None and self._for_host(s):
                waiting.append(s)
                continue
            if waiting:
                out.append(self._host(waiting))
                waiting = []
            if reduced is not None:
                fresh.add(n + 1)
                out += self.move(reduced, b.stmts[n + 1])
                continue
            found = overwriting(self.scope, s, b.stmts[n + 1 :])
            if found is not None:
                call, accumulate = found
                self.adds[id(call)] = accumulate
                continue
            out += self.stmt(s)
        if waiting:
            out.append(self._host(waiting))
        return tuple(out)

    def stmt(self, s: st.Stmt) -> tuple[Item, ...]:
        nest = chain_of(s)
        if nest is not None:
            return self.move(nest, s)
        match s:
            case st.For():
                with self.scope.inside(s):
                    only_call = isinstance(s.body.stmts[0], st.Call) and len(s.body.stmts) == 1
                    self.loops.append(s.name)
                    body = self.call(s.body.stmts[0], s) if only_call else self.block(s.body)  # type: ignore[arg-type]
                    self.loops.pop()
                return (Loop(s.name, s.lo, s.hi, body, s.step),)
            case st.If():
                if ex.loads(s.cond):
                    raise CodegenError(f"`if {s.cond}` decides on data, around work of {self.machine.name}", hint="guard by indices")
                with self.scope.assuming(s.cond):
                    then = self.block(s.then)
                with self.scope.assuming(self.scope.negation(s.cond)):
                    orelse = self.block(s.orelse) if s.orelse else ()
                return (Branch(s.cond, then, orelse),)
            case st.Block():
                return self.block(s)
            case st.Call():
                return self.call(s, None)
        raise CodegenError(f"`{str(s).splitlines()[0]}` is nothing that {self.machine.name} or its host does")

    # What the host does

    def _for_host(self, s: st.Stmt) -> bool:
        used = st.read_buffers(s) | st.written_buffers(s)
        allocated = {t.buffer.name for t in st.walk(s) if isinstance(t, st.Alloc)}
        calls = any(isinstance(t, st.Call) and t.kernel.instruction for t in st.walk(s))
        return not calls and not (used | allocated) & self.places.keys() and (bool(used) or isinstance(s, st.Alloc))

    def _is_shared(self, s: st.Alloc, rest: Sequence[st.Stmt]) -> bool:
        """Whether what follows its declaration uses an array beyond the next work of the machine: then the program owns it."""
        inside = (isinstance(t, st.Alloc) or self._for_host(t) for t in rest)
        first = next((n for n, host in enumerate(inside) if not host), len(rest))
        name = s.buffer.name
        if not any(name in st.read_buffers(t) | st.written_buffers(t) for t in rest[first:]):
            return False
        if not all(isinstance(e, ex.Const) for e in s.buffer.shape):
            raise CodegenError(
                f"{name} in main memory: its shape {[str(e) for e in s.buffer.shape]} is not constant", hint="split by constants"
            )
        self.temps[name] = s.buffer
        return True

    def _host(self, stmts: list[st.Stmt]) -> Host:
        body = st.Block(tuple(stmts))
        used = st.read_buffers(body) | st.written_buffers(body)
        local = {t.buffer.name for t in st.walk(body) if isinstance(t, st.Alloc)}
        args = tuple(b for b in (*self.kernel.args, *self.temps.values()) if b.name in used - local)
        own = {f.name for f in st.loops(body)}
        free = {v for t in st.walk(body) for e in st.own_exprs(t) for v in ex.free_vars(e)} - own
        sizes = tuple(ex.Var(n) for n in self.scope.ranges if n in free)
        self.hosts += 1
        return Host(st.Kernel(f"{self.kernel.name}_host_{self.hosts}", args, body, sizes), sizes, tuple(b.name for b in args))

    # What the machine does

    def move(self, nest: Chain, s: st.Stmt) -> tuple[Item, ...]:
        local = {nest.store.buffer, *(ld.buffer for ld in ex.loads(nest.store.value))}
        self.fixed |= {b.memory for b in local if b.name in self.places and self.places[b.name].around != tuple(self.loops)}
        found, why = moves(self.scope, self.machine, nest)
        errors: list[CodegenError] = []
        ways: list[tuple[Move, list[Needed], tuple[Item, ...]]] = []
        for m in found:
            with ExitStack() as stack:
                for f in m.loops:
                    stack.enter_context(self.scope.inside(f))
                try:
                    placed = {n: self.placed(w) for n, w in m.windows.items()}
                    items = self.issue(m.instruction, placed, m.settings, known=self.of_windows(m, placed))
                except CodegenError as e:
                    errors.append(e)
                    continue
            ways.append((m, [i for i in items if isinstance(i, Needed)], items))
        if not ways:
            if errors:
                raise errors[0]
            raise CodegenError(
                f"kernel {self.kernel.name}: no instruction of {self.machine.name} does\n{s}\n({why})",
                hint="let the host do it (keep it in main memory), or declare the transfer",
            )
        m, needed, items = min(ways, key=lambda way: (self._changes(way[1]), len(way[0].loops)))
        for n in needed:
            self.chosen[n.state] = merged(self.chosen.get(n.state, {}), dict(n.values)) or dict(n.values)
        for f in reversed(m.loops):
            items = (Loop(f.name, self.scope.expr(f.lo), self.scope.expr(f.hi), items, f.step),)
        return items

    def of_windows(self, m: Move, placed: Mapping[str, Placed]) -> dict[str, Expr]:
        """Quantities of a move besides strides: what its axes walk, and how much of an operand is there and is not."""
        known = {f"{axis}.extent": self.scope.expr(e) for axis, e in m.extents.items()}
        for name, w in m.windows.items():
            around = m.around.get(name, ((ex.idx(0), ex.idx(0)),) * len(w.spans))
            for d, (span, (before, _)) in enumerate(zip(w.spans, around, strict=True)):
                known |= {f"{name}.before{d}": before, f"{name}.inside{d}": self.scope.expr(span.extent)}
            if len(w.spans) > 2 and (pitch := placed[name].strides.get("pitch")) is not None:
                # Where lines go on beyond what a window reads, nothing tells the hardware that an image ends there.
                ends = self.scope.expr(w.spans[-2].lo + w.spans[-2].extent) == ex.idx(pitch)
                if around[-2][1] != ex.idx(0) and not ends:
                    raise CodegenError(f"{m.instruction.name}: {w} ends before its rows of {pitch} do", hint="tile along other dimensions")
        return known

    def _changes(self, needed: list[Needed]) -> int:
        """0 when what is chosen already serves, 1 when nothing uses the state yet, 2 when it must change back and forth."""
        cost = 0
        for n in needed:
            mine = self.chosen.get(n.state)
            cost = max(cost, 1 if mine is None else 2 if merged(mine, dict(n.values)) is None else 0)
        return cost

    def call(self, s: st.Call, loop: st.For | None) -> tuple[Item, ...]:
        """An instruction; ``loop`` holds nothing else, so that an operand that stays from iteration to iteration can stay in the unit."""
        if s.kernel.instruction is None:
            raise CodegenError(f"`{s}` calls a kernel, not an instruction", hint="inline it")
        if s.kernel.name in self.uses:
            return run(self.uses[s.kernel.name], s, self.placed)
        instruction = self.machine.instruction(s.kernel.instruction)
        windows = {b.name: w for b, w in zip(s.kernel.args, s.args, strict=True)}
        placed = {n: self.placed(w) for n, w in windows.items()}
        accumulate = self.adds.get(id(s), ex.idx(1))
        items = self.issue(instruction, placed, {}, accumulate)
        emit = instruction.emit
        if loop is None or not isinstance(emit, Steps) or not emit.again:
            return items
        w = windows[emit.held]
        if any(loop.name in ex.free_vars(e) for e in st.own_exprs(st.Call(s.kernel, (), (w,)))):
            return items
        again = self.issue(instruction, placed, {}, accumulate, again=True)
        items, again = self._shortest_earlier(items, loop), self._shortest_earlier(again, loop)
        demands = tuple(i for i in items if isinstance(i, Needed))
        return (
            *demands,
            Branch(
                ex.compare("==", loop.var, loop.lo),
                tuple(i for i in items if not isinstance(i, Needed)),
                tuple(i for i in again if not isinstance(i, Needed)),
            ),
        )

    def _shortest_earlier(self, items: tuple[Item, ...], loop: st.For) -> tuple[Item, ...]:
        """A last iteration that takes a tile cut short runs before the one before it: what comes into the units next does so
        while the iteration that then is last works, which gives it more time. The iterations may come in any order: they work on
        different results, or add to the same.
        """
        tiles = [o for c in items if isinstance(c, Command) for _, o in c.operands if isinstance(o, Tile)]
        if loop.step != 1 or not any(loop.name in ex.free_vars(e) for o in tiles for e in (o.rows, o.cols)):
            return items
        last, before = loop.hi - 1, loop.hi - 2
        earlier = ex.where(ex.compare("==", loop.var, last), ex.binary("max", before, loop.lo), loop.var)
        swapped = ex.where(ex.compare("==", loop.var, before), last, earlier)
        return tuple(substituted(i, {loop.name: swapped}) if isinstance(i, Command) else i for i in items)

    def placed(self, w: st.Window) -> Placed:
        b = w.buffer
        if b.memory in self.inside:
            return in_lines(self.scope, self.machine, w, self.places[b.name])
        if b.name not in self.temps and b.name not in self.arguments:
            raise CodegenError(
                f"{w}: {b.name} is in {b.memory}, where no instruction of {self.machine.name} finds it", hint="set its memory"
            )
        return in_main_memory(self.scope, w)

    def issue(
        self,
        i: Instruction,
        placed: dict[str, Placed],
        settings: dict[str, int],
        accumulate: Expr = ex.idx(1),
        again: bool = False,
        known: Mapping[str, Expr] | None = None,
    ) -> tuple[Item, ...]:
        """The words of one instruction, after the state it needs; ``known`` are quantities besides strides."""
        quantities: dict[str, Expr] = {f"{n}.bits": ex.idx(v) for n, v in settings.items()} | dict(known or {})
        for n, p in placed.items():
            quantities |= {f"{n}.{what}": ex.idx(v) for what, v in p.strides.items()}
        out: list[Item] = []
        used: set[str] = set()
        for need in i.needs:
            values = []
            for name, value in need.values:
                if isinstance(value, int):
                    values.append((name, ex.idx(value)))
                    continue
                used.add(value)
                if value in quantities:
                    values.append((name, quantities[value]))
            out.append(Needed(need.state, tuple(values)))
        if isinstance(i.emit, Steps):
            names = [(f"{i.name}.{w.name}", w) for w in (i.emit.again if again else i.emit.steps)]
        elif isinstance(i.emit, RoCC):
            names = [(i.name, i.emit)]
        else:
            raise CodegenError(f"instruction {i.name} declares no words", hint="give it emit=RoCC(...)")
        self._strides_fit(i, placed, used)
        for name, word in names:
            operands: list[tuple[str, Operand]] = []
            asked = dict.fromkeys(b.value.partition(".")[0] for b in (*word.rs1, *word.rs2) if isinstance(b.value, str))
            for n in asked:
                operands.append((n, accumulate if n == "accumulate" else placed[n].operand))
            out.append(Command(name, tuple(operands)))
        return tuple(out)

    def _strides_fit(self, i: Instruction, placed: dict[str, Placed], used: set[str]) -> None:
        for n, p in placed.items():
            for what, v in p.strides.items():
                operand = i.operand(n)
                fixed = None if operand.memory not in self.inside else 1 if what == "stride" else operand.shape[0]
                if f"{n}.{what}" not in used and v != fixed:
                    raise CodegenError(
                        f"{i.name}: operand {n} has {what} {v}, for which its words have no field",
                        hint=f"with strides of {fixed} it works" if fixed else "use tiles of one row",
                    )
