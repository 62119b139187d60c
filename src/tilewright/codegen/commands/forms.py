"""Recognition of loop forms: tiles of a scheduled kernel that one run of a declared form does, by matching what they compute.

A tile is the life of a buffer of sums: it is set, instructions add to it, it is taken out. What these three compute over the
arrays in main memory is unified with the parts of a form. Where all three match, calls of the form take their place, and the copies
that the instructions worked on go. The result is a kernel that computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

from tilewright.codegen.commands.form_kernels import AFTER, BEFORE, Use, semantics
from tilewright.codegen.commands.placing import managed
from tilewright.codegen.commands.raising import Copy, copy_of, raised, zeroed_by
from tilewright.hw import LoopForm, Machine, Part
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr
from tilewright.ir.simplify import Simplifier, simplify
from tilewright.schedule.guards import leveled, started
from tilewright.schedule.moves import Move, whole
from tilewright.schedule.nest import trip_count
from tilewright.schedule.primitives.peel import peel
from tilewright.schedule.region import largest_extent
from tilewright.schedule.unify import Chain, Mismatch, chain_of
from tilewright.util.errors import CodegenError


@dataclass(frozen=True, slots=True)
class Formed:
    """A kernel with calls of forms, and what each is by the name of the kernel that is called."""

    kernel: st.Kernel
    uses: Mapping[str, Use]


def formed(kernel: st.Kernel, machine: Machine, names: Sequence[str]) -> Formed:
    """``kernel`` with the tiles that forms called ``names`` do as calls of them; it computes the same.

    A form takes a tile inside the loops that load for it, or inside more of them as long as a run does not fit its part of a
    memory. Where that is no tile of the kernel, first blocks that are smaller than the others get loops of their own. CodegenError when no
    tile is done by a form, with the reason, or when something else stays in the memories meanwhile.
    """
    former, body = _tried(kernel, machine, names)
    if not former.uses and (apart := _first_apart(kernel, machine)) is not kernel:
        second, other = _tried(apart, machine, names)
        kernel, former, body = (apart, second, other) if second.uses else (kernel, former, body)
    if not former.uses:
        raise CodegenError(
            f"kernel {kernel.name}: no tile is what {' or '.join(names)} does ({former.why.reason or 'nothing is summed up'})",
            hint="generate it without forms",
        )
    new = simplify(kernel.with_(body=_without_copies(body, managed(machine))))
    _alone(new, machine, former.uses)
    _undisturbed(new, machine, former.uses)
    return Formed(new, former.uses)


def _tried(kernel: st.Kernel, machine: Machine, names: Sequence[str]) -> tuple[_Former, st.Block]:
    former = _Former(kernel, machine, [machine.form(n) for n in names])
    return former, former.block(kernel.body, {})


def _first_apart(kernel: st.Kernel, machine: Machine) -> st.Kernel:
    """``kernel`` with the first iterations apart of the loops over tiles in which something begins later than in the others: with the
    image, where windows of the other tiles begin before it. ``kernel`` itself if there is none.
    """
    inside, new = managed(machine), kernel
    for f in st.loops(kernel):
        tiles = any(isinstance(t, st.Alloc) and t.buffer.memory in inside for t in f.body.stmts)
        if tiles and f.step == 1 and (trip_count(f) or 0) > 1 and _begins(f):
            new, _ = peel(new, f.name, 1, "first")
    return simplify(new) if new is not kernel else kernel


def _begins(f: st.For) -> bool:
    """Whether how many iterations a loop directly in ``f`` has depends on where ``f`` is after a beginning."""
    bounds = (e for s in f.body.stmts if isinstance(s, st.For) for e in (s.lo, s.hi))
    highest = (n for e in bounds for n in ex.walk(e) if isinstance(n, ex.Binary) and n.op == "max")
    return any(f.name in ex.free_vars(n) for n in highest)


class _Former:
    def __init__(self, kernel: st.Kernel, machine: Machine, forms: Sequence[LoopForm]):
        self.kernel, self.machine, self.forms = kernel, machine, forms
        self.inside = managed(machine)
        self.written = st.written_buffers(kernel.body)
        self.scope = Simplifier()
        self.uses: dict[str, Use] = {}
        self.why = Mismatch("", -1)

    def block(self, b: st.Block, copies: Mapping[str, Copy]) -> st.Block:
        known = _Contents(self, copies)
        stmts = list(b.stmts)
        sums = [s.buffer.name for s in b.stmts if isinstance(s, st.Alloc) and s.buffer.memory in self.inside]
        users = {name: [s for s in b.stmts if name in st.read_buffers(s) | st.written_buffers(s)] for name in sums}
        lives = {id(s[1]): s for s in users.values() if len(s) == 3}
        for s in b.stmts:
            known.after(s)
            life = lives.get(id(s))
            before = _started_by(b.stmts, life[2]) if life is not None else None
            kept = [t for t in b.stmts if t is not before]
            found = self.tile(life, before, known.copies) if life is not None and self.undisturbed(kept, life) else None
            if life is not None and found is not None:
                stmts = [found if t is s else t for t in stmts if t is not life[0] and t is not life[2] and t is not before]
            elif isinstance(s, st.For):
                with self.scope.inside(s):
                    inner = self.block(s.body, known.copies)
                if inner != s.body:
                    stmts = [replace(s, body=inner) if t is s else t for t in stmts]
        return st.Block(tuple(stmts))

    def undisturbed(self, stmts: Sequence[st.Stmt], life: Sequence[st.Stmt]) -> bool:
        """Whether the results may come as soon as the sums are complete: nothing touches them in between."""
        at = [n for n, s in enumerate(stmts) if any(s is t for t in life)]
        results = st.written_buffers(life[2])
        return not any((st.read_buffers(s) | st.written_buffers(s)) & results for s in stmts[at[0] : at[2]])

    def tile(self, users: Sequence[st.Stmt], before: st.Stmt | None, copies: Mapping[str, Copy]) -> st.Stmt | None:
        """The nest around runs of a form in place of ``users``: what sets sums, adds to them, takes them out (after ``before`` has set
        what it reduces to)."""
        first, nest, last = users
        start, finish = chain_of(first), chain_of(last)
        finish = started(chain_of(before), finish) if before is not None else finish
        if start is None or finish is None:
            return None
        path = self.path(nest, start.store.buffer.name, copies)
        if path is None:
            return None
        loops, anchored, call, known = path
        for form in self.forms:
            # Without a chain all of it is one run.
            for outside in range(anchored, len(loops) + 1) if form.chains else (0,):
                found = self.runs_of(form, (start, finish), loops, outside, call, known)
                if found is not None:
                    return found
        return None

    def runs_of(
        self, form: LoopForm, ends: tuple[Chain, Chain], loops: Sequence[st.For], outside: int, call: st.Call, copies: Mapping[str, Copy]
    ) -> st.Stmt | None:
        """Runs of ``form`` in the first ``outside`` of ``loops``, each of which does the rest of them around ``call``."""
        around = loops[:outside]
        if any(f.step != 1 for f in around) or not self.always(around):
            return None
        with ExitStack() as stack:
            for f in around:
                stack.enter_context(self.scope.inside(f))
            update = raised(self.scope, loops[outside:], call, copies)
            around_it: dict[str, frozenset[int]] = {}
            for copy in (copies[w.buffer.name] for w in call.args if w.buffer.name in copies):
                name = copy.source.buffer.name
                around_it[name] = around_it.get(name, frozenset()) | copy.around
            use = self.matching(form, (ends[0], update, ends[1]), around_it) if update is not None else None
            return self.called(use, around) if use is not None else None

    def path(self, nest: st.Stmt, sums: str, copies: Mapping[str, Copy]) -> tuple[list[st.For], int, st.Call, Mapping[str, Copy]] | None:
        """The loops from ``nest`` to the one call that adds to ``sums``, how many are around the last load, the call, what it works on."""
        with ExitStack() as inside:
            return self.walked(nest, sums, copies, inside)

    def walked(
        self, nest: st.Stmt, sums: str, copies: Mapping[str, Copy], inside: ExitStack
    ) -> tuple[list[st.For], int, st.Call, Mapping[str, Copy]] | None:
        """The same, each loop's range being known ``inside`` it."""
        loops: list[st.For] = []
        anchored, s = 0, nest
        while not isinstance(s, st.Call):
            match s:
                case st.For():
                    loops.append(s)
                    inside.enter_context(self.scope.inside(s))
                    s = s.body
                case st.Block():
                    users = [t for t in s.stmts if sums in st.read_buffers(t) | st.written_buffers(t)]
                    loads = [t for t in s.stmts if t not in users]
                    if len(users) != 1 or not all(isinstance(t, st.Alloc) or chain_of(t) is not None for t in loads):
                        return None
                    if not all(st.written_buffers(t) <= self.placed() for t in loads):
                        return None
                    known = _Contents(self, copies)
                    for t in loads:
                        known.after(t)
                    copies, s = known.copies, users[0]
                    anchored = len(loops) if loads else anchored
                case _:
                    return None
        return loops, anchored, s, copies

    def placed(self) -> set[str]:
        return {b.name for b in st.allocated(self.kernel) if b.memory in self.inside}

    def always(self, loops: Sequence[st.For]) -> bool:
        """Whether ``loops`` run at least once: the first and the last time do more than the others."""
        return all(self.scope.nonneg(self.scope.linear(f.hi - f.lo - 1)) for f in loops)

    def matching(self, form: LoopForm, nests: tuple[Chain, Chain, Chain], zeros: Mapping[str, frozenset[int]]) -> Use | None:
        """``nests`` as the parts of ``form``, if it has room for them; the deepest reason against is kept.

        Along the dimensions ``zeros`` of an array there are zeros where it ends.
        """
        found = []
        for parts, nest in zip((form.starts, form.updates, form.finishes), nests, strict=True):
            ways = [(p, self.done_by(p, nest, zeros)) for p in parts]
            fitting = [(p, w) for p, w in ways if isinstance(w, Move)]
            if not fitting:
                reasons = [Mismatch(f"{p.instruction.name}: {w.reason}", w.depth) for p, w in ways if isinstance(w, Mismatch)]
                self.why = max([self.why, *reasons], key=lambda m: m.depth)
                return None
            found.append(fitting[0])
        use = Use(form, *found)
        return use if self.fits(use) else None

    def done_by(self, part: Part, nest: Chain, zeros: Mapping[str, frozenset[int]]) -> Move | Mismatch:
        """``nest`` as ``part``, whose operands are in their memories and, where they are inputs, change nowhere in the kernel."""
        move = whole(self.scope, nest, part.instruction)
        if isinstance(move, Mismatch):
            return move
        for n, w in move.windows.items():
            operand = part.instruction.operand(n)
            if w.buffer.memory != operand.memory:
                return Mismatch(f"operand {n} is in {operand.memory}, {w.buffer.name} in {w.buffer.memory}", 8)
            if operand.role == "in" and operand.memory not in self.inside and w.buffer.name in self.written:
                return Mismatch(f"operand {n} would be {w.buffer.name}, which the kernel writes", 8)
            beside = zeros.get(w.buffer.name, frozenset()) - {_dimension(w, d) for o, d, _ in part.around if o == n}
            if beside:
                return Mismatch(f"operand {n} has no zeros around it, {w.buffer.name} has along dimension {min(beside)}", 8)
            if operand.shape and operand.memory not in self.inside and pitches(w) is None:
                return Mismatch(f"operand {n} would be {w}, whose rows are not evenly spaced", 8)
        return move

    def fits(self, use: Use) -> bool:
        """Whether the parts work on the same sums and a run takes at most its part of each memory."""
        windows = [m.windows[use.form.sums] for _, m in use.phases]
        if len({w.buffer.name for w in windows}) > 1 or not all(self.same(w, windows[0]) for w in windows):
            self.why = max(self.why, Mismatch(f"its parts work on {', '.join(map(str, windows))}", 9), key=lambda m: m.depth)
            return False
        most = {n: largest_extent(self.scope, ex.idx(0), e) for n, e in use.update[1].extents.items()}
        known = {n: e for n, e in most.items() if e is not None}
        if len(known) < len(most):
            return False
        for name, lines in use.form.lines:
            taken, room = lines({**dict(use.form.idle), **dict(use.update[0].fields), **known}), room_of(self.machine, name)
            if taken > room:
                self.why = max(self.why, Mismatch(f"a run takes {taken} lines of {name}, it may take {room}", 10), key=lambda m: m.depth)
                return False
        return True

    def same(self, a: st.Window, b: st.Window) -> bool:
        """Whether two windows of one buffer are provably the same."""
        pairs = zip(a.spans, b.spans, strict=True)
        return all(s.step == t.step and not any(map(self.differ, ((s.lo, t.lo), (s.extent, t.extent)))) for s, t in pairs)

    def differ(self, pair: tuple[Expr, Expr]) -> bool:
        return leveled(self.scope, pair[0] - pair[1]) != ex.idx(0)

    def called(self, use: Use, around: Sequence[st.For]) -> st.Stmt:
        """``around`` a call of the form, whose kernel has the semantics of all three parts."""
        name = f"{use.form.name}_{len(self.uses) + 1}"
        self.uses[name] = use
        counts: dict[str, Expr] = {}
        if around:
            before, after = ex.idx(0), ex.idx(0)
            for f in around:
                before, after = before + (f.var - f.lo), after + (f.hi - 1 - f.var)
            counts = {BEFORE: self.scope.expr(before), AFTER: self.scope.expr(after)}
        kernel, sizes = semantics(name, f"{self.machine.name}/{use.form.name}", use, bool(around))
        windows = {n: w for _, m in reversed(use.phases) for n, w in m.windows.items()}
        for part, move in use.phases:
            for operand, d, more in part.around:
                if operand == use.form.sums:
                    before, after = move.around[operand][d] if operand in move.around else (ex.idx(0), ex.idx(0))
                    counts |= {f"{operand}_before{d}": before, f"{operand}_after{d}": after}
                else:
                    windows[operand], counts = self.inside_of(windows[operand], operand, d, more, counts)
        values = tuple((counts | sizes)[v.name] for v in kernel.sizes)
        s: st.Stmt = st.Call(kernel, values, tuple(windows[b.name] for b in kernel.args))
        for f in reversed(around):
            s = replace(f, body=st.Block((s,)))
        return s

    def inside_of(self, w: st.Window, operand: str, d: int, more: int, counts: Mapping[str, Expr]) -> tuple[st.Window, dict[str, Expr]]:
        """The part of ``w`` that is inside its array along a dimension of ``operand``, and also the counts of what is not."""
        at = _dimension(w, d)
        span, size = w.spans[d], w.buffer.shape[at]
        before = self.scope.expr(ex.binary("max", span.lo * -1, 0))
        after = self.scope.expr(ex.binary("max", span.lo + span.extent + more - size, 0))
        inner = st.Span(self.scope.expr(span.lo + before), self.scope.expr(span.extent + more - before - after), span.step)
        named = {f"{operand}_before{d}": before, f"{operand}_after{d}": after}
        return replace(w, indices=(*w.indices[:at], inner, *w.indices[at + 1 :])), {**counts, **named}


class _Contents:
    """What buffers are copies of, as far as the statements of a block seen so far tell."""

    def __init__(self, former: _Former, copies: Mapping[str, Copy]):
        self.former, self.copies = former, dict(copies)
        #: Buffers made in this block that nothing but, perhaps, zeros was written to.
        self.fresh: set[str] = set()
        self.zeroed: dict[str, tuple[Expr, ...]] = {}

    def after(self, s: st.Stmt) -> None:
        if isinstance(s, st.Alloc):
            self.fresh.add(s.buffer.name)
            self.copies.pop(s.buffer.name, None)
        zeroed, found = zeroed_by(s), copy_of(self.former.scope, s, self.zeroed)
        for name in st.written_buffers(s):
            self.copies.pop(name, None)
            if name in self.fresh and zeroed is not None:
                self.zeroed[name] = zeroed[1]
            elif name in self.fresh | self.zeroed.keys() and found is not None and found[1].source.buffer.name not in self.former.written:
                self.copies[name] = found[1]
                self.zeroed.pop(name, None)
            self.fresh.discard(name)


def _started_by(stmts: Sequence[st.Stmt], s: st.Stmt) -> st.Stmt | None:
    """The statement right before ``s`` that sets what it reduces to."""
    at = next(n for n, t in enumerate(stmts) if t is s)
    return stmts[at - 1] if at and started(chain_of(stmts[at - 1]), chain_of(s)) is not None else None


def _dimension(w: st.Window, d: int) -> int:
    """The dimension of the buffer that is dimension ``d`` of what ``w`` shows."""
    return [n for n, i in enumerate(w.indices) if isinstance(i, st.Span)][d]


def pitches(w: st.Window) -> tuple[int, ...] | None:
    """Elements from one index to the next along each dimension of ``w``; None unless each is a multiple of the one after it in an array
    stored row by row."""
    if w.buffer.layout is not None:
        return None
    out: list[int] = []
    step = 1
    for i, n in zip(reversed(w.indices), reversed(w.buffer.static_shape), strict=True):
        if isinstance(i, st.Span):
            out.insert(0, step * i.step)
        step *= n
    return tuple(out) if all(a % b == 0 for a, b in pairwise(out)) else None


def room_of(machine: Machine, memory: str) -> int:
    """The lines of ``memory`` that a run of a form may take: the others are being filled or emptied meanwhile."""
    m = machine.memory(memory)
    return (m.bytes or 0) // m.line // m.buffers


def _without_copies(body: st.Block, inside: set[str]) -> st.Block:
    """``body`` without buffers in the memories ``inside`` that nothing reads."""
    while True:
        local = {t.buffer.name for t in st.walk(body) if isinstance(t, st.Alloc) and t.buffer.memory in inside}
        idle = local - st.read_buffers(body)

        def kept(s: st.Stmt, idle: set[str] = idle) -> st.Stmt | tuple[st.Stmt, ...] | None:
            gone = (isinstance(s, st.Alloc) and s.buffer.name in idle) or (isinstance(s, st.Store) and s.buffer.name in idle)
            return () if gone else None

        if not idle:
            return body
        new = st.map_stmts(body, kept)
        assert isinstance(new, st.Block)
        body = new


def _alone(kernel: st.Kernel, machine: Machine, uses: Mapping[str, Use]) -> None:
    """CodegenError when a buffer of explicit instructions lives while a form runs: the form takes lines without being told which."""
    for b in (t for t in st.walk(kernel.body) if isinstance(t, st.Block)):
        for n, s in enumerate(b.stmts):
            if not isinstance(s, st.Alloc) or s.buffer.memory not in managed(machine):
                continue
            name = s.buffer.name
            users = [m for m, t in enumerate(b.stmts) if name in st.read_buffers(t) | st.written_buffers(t)]
            for call in _form_calls(b.stmts[n : max(users, default=n) + 1], uses):
                if all(w.buffer.name != name for w in call.args):
                    raise CodegenError(
                        f"kernel {kernel.name}: {name} stays in {s.buffer.memory} while {uses[call.kernel.name].form.name} runs",
                        hint="generate it without forms, or load it after",
                    )


def _undisturbed(kernel: st.Kernel, machine: Machine, uses: Mapping[str, Use]) -> None:
    """CodegenError when a form loses state that others need: setters are put where nothing changes it in between."""
    lost = {state: u.form.name for u in uses.values() for state in u.form.clobbers}
    needed = {n.state: u.form.name for u in uses.values() for p, _ in u.phases for n in p.instruction.needs}
    explicit = [b.name for b in st.allocated(kernel) if b.memory in managed(machine)]
    explicit = [n for n in explicit if all(w.buffer.name != n for c in _form_calls((kernel.body,), uses) for w in c.args)]
    users = [needed[state] for state in lost if state in needed] + (explicit if lost else [])
    if users:
        raise CodegenError(
            f"kernel {kernel.name}: {', '.join(sorted(set(lost.values())))} loses state that {', '.join(sorted(set(users)))} needs",
            hint="generate the parts as kernels of their own",
        )


def _form_calls(stmts: Sequence[st.Stmt], uses: Mapping[str, Use]) -> Iterator[st.Call]:
    return (t for s in stmts for t in st.walk(s) if isinstance(t, st.Call) and t.kernel.name in uses)
