"""Simplification of kernels: indices under loop ranges, dead guards, empty and one-trip loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import reduce

from tilewright.ir import expr as ex
from tilewright.ir.expr import FALSE, Compare, Const, Expr, Load, Var
from tilewright.ir.index_scope import MAX_FACTS, IndexScope
from tilewright.ir.interval import Range
from tilewright.ir.linear import Linear
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Span, Stmt, Store, While, Window, store

#: Loops whose number of iterations may become variable (lanes and unrolled bodies need a constant).
_TIGHTENED = (LoopKind.SERIAL, LoopKind.PARALLEL)


@dataclass(slots=True)
class Simplifier(IndexScope):
    """Simplification of statements, entering and leaving the scopes of loops and guards.

    With ``tighten``, guards on a loop's variable around its whole body become bounds of the loop.
    """

    tighten: bool = False

    def block(self, b: Block, keep: frozenset[str]) -> Block:
        """``b`` simplified; nested blocks are spliced (names are unique, so their buffers may live longer)."""
        out: list[Stmt] = []
        for s in b.stmts:
            new = self.stmt(s, keep)
            out.extend(new.stmts if isinstance(new, Block) else (new,))
        if len(out) == len(b.stmts) and all(n is o for n, o in zip(out, b.stmts, strict=True)):
            return b
        return Block(tuple(out))

    def stmt(self, s: Stmt, keep: frozenset[str]) -> Stmt:
        """``s`` simplified; an empty Block when nothing is left of it."""
        match s:
            case Store():
                return self._store(s)
            case Alloc():
                return self._alloc(s)
            case For():
                return self._for(s, keep)
            case If():
                return self._if(s, keep)
            case While():
                cond = self.expr(s.cond)
                return Block(()) if cond == FALSE else replace(s, cond=cond, body=self.block(s.body, keep))
            case Block():
                return self.block(s, keep)
            case Call():
                return replace(s, sizes=tuple(map(self.expr, s.sizes)), args=tuple(map(self._window, s.args)))
        return s

    def _store(self, s: Store) -> Store:
        indices, value = tuple(map(self.expr, s.indices)), self.expr(s.value)
        target = self.buffers.get(s.buffer.name, s.buffer)
        new = store(Load(target, indices), value, s.op, s.loc)
        kept = target is s.buffer and new.op == s.op and value is s.value
        return s if kept and all(n is o for n, o in zip(indices, s.indices, strict=True)) else new

    def _alloc(self, s: Alloc) -> Alloc:
        shape = tuple(map(self.expr, s.buffer.shape))
        if shape == s.buffer.shape:
            return s
        self.buffers[s.buffer.name] = s.buffer.with_(shape=shape)
        return Alloc(self.buffers[s.buffer.name], s.loc)

    def _window(self, w: Window) -> Window:
        indices = tuple(Span(self.expr(i.lo), self.expr(i.extent), i.step) if isinstance(i, Span) else self.expr(i) for i in w.indices)
        return Window(self.buffers.get(w.buffer.name, w.buffer), indices)

    def _if(self, s: If, keep: frozenset[str]) -> Stmt:
        cond = self.expr(s.cond)
        if isinstance(cond, Const):
            taken = s.then if cond.value else s.orelse
            return self.block(taken, keep) if taken else Block(())
        with self.assuming(cond):
            then = self.block(s.then, keep)
        orelse = None
        if s.orelse:
            with self.assuming(self.negation(cond)):
                orelse = self.block(s.orelse, keep)
        if orelse and not orelse.stmts:
            orelse = None
        if then.stmts:
            return replace(s, cond=cond, then=then, orelse=orelse)
        return If(self.negation(cond), orelse, None, s.loc) if orelse else Block(())

    def _for(self, s: For, keep: frozenset[str]) -> Stmt:
        lo, hi = self.linear(s.lo), self.linear(s.hi)
        span = hi.plus(lo, -1)
        if self.nonneg(span.times(-1)):
            return Block(())
        once = s.kind is not LoopKind.BIND and s.name not in keep and not _reads_memory(lo)
        if once and self.nonneg(Linear({}, s.step).plus(span, -1)) and self.nonneg(Linear(span.terms, span.const - 1)):
            with self._bound_to(s.name, lo):
                return self.block(s.body, keep)
        with self.loop(s.var, lo, hi, s.step):
            body = self.block(s.body, keep)
        if not body.stmts:
            return Block(())
        first, last = self.render(lo), self.render(hi)
        if body is s.body and first == s.lo and last == s.hi:
            return s
        new = replace(s, lo=first, hi=last, body=body)
        return self._tightened(new) if self.tighten and s.kind in _TIGHTENED else new

    def _tightened(self, f: For) -> Stmt:
        """``for i: if i < n and c: s`` is ``if c: for i < n: s`` where c does not change in the loop."""
        match f.body.stmts:
            case (If(cond=cond, then=then, orelse=None),):
                pass
            case _:
                return f
        lo, hi = f.lo, f.hi
        inside: list[Expr] = []
        outside: list[Expr] = []
        for c in ex.conjuncts(cond):
            bound = self.facts_of(c) if isinstance(c, Compare) and c.op not in ("==", "!=") else []
            factor = {fact.terms.get(f.var, 0) for fact in bound}
            nested = any(f.name in ex.free_vars(a) for fact in bound for a in fact.terms if a != f.var)
            if f.name not in ex.free_vars(c) and not ex.loads(c):
                outside.append(c)
            elif factor == {-1} and not nested:
                for fact in bound:
                    hi = ex.binary("min", hi, self.render(Linear({f.var: 1}).plus(fact).plus(Linear({}, 1))))
            elif factor == {1} and not nested and f.step == 1:
                for fact in bound:
                    lo = ex.binary("max", lo, self.render(Linear({f.var: 1}).plus(fact, -1)))
            else:
                inside.append(c)
        body = Block((If(_all_of(inside), then),)) if inside else then
        new = replace(f, lo=self.expr(lo), hi=self.expr(hi), body=body)
        return If(_all_of(outside), Block((new,))) if outside else new

    @contextmanager
    def _bound_to(self, name: str, value: Linear) -> Iterator[None]:
        values, memo = self.values, self._memo
        self.values, self._memo = {**values, name: value}, {}
        try:
            yield
        finally:
            self.values, self._memo = values, memo

    def inside(self, f: For) -> AbstractContextManager[None]:
        """What is known in the body of ``f``, which stands in this scope."""
        return self.loop(f.var, self.linear(f.lo), self.linear(f.hi), f.step)

    @contextmanager
    def loop(self, var: Var, lo: Linear, hi: Linear, step: int = 1) -> Iterator[None]:
        """The scope of one loop's body: the variable's interval, and its symbolic bounds as facts."""
        first, last = self.bounds(lo)[0], self.bounds(hi)[1]
        if not lo.terms and not hi.terms:
            last = lo.const + (hi.const - 1 - lo.const) // step * step
        elif last is not None:
            last -= 1
        facts, memo, ranges, atoms, proofs = self.facts, self._memo, self.ranges, self._atom_ranges, self._proofs
        self._memo, self.ranges, self._atom_ranges, self._proofs = {}, {**ranges, var.name: (first, last)}, {}, {}
        me = Linear({var: 1})
        symbolic = [me.plus(lo, -1)] if lo.terms else []
        if hi.terms:
            symbolic.append(Linear(hi.terms, hi.const - 1).plus(me, -1))
        if symbolic:
            self.facts = ([f for a in symbolic for f in self.split_extrema(a) if not _reads_memory(f)] + facts)[:MAX_FACTS]
        try:
            yield
        finally:
            self.facts, self._memo, self.ranges, self._atom_ranges, self._proofs = facts, memo, ranges, atoms, proofs


def _all_of(conditions: list[Expr]) -> Expr:
    return reduce(lambda a, b: ex.logical("and", a, b), conditions)


def _reads_memory(a: Linear) -> bool:
    """Such a fact could be made false by a store in the scope."""
    return any(isinstance(n, Load) for atom in a.terms if not isinstance(atom, Var) for n in ex.walk(atom))


# --- entry points ---------------------------------------------------------------------------


def simplify_expr(e: Expr, ranges: Mapping[str, Range]) -> Expr:
    """``e`` with its index arithmetic simplified.

    ``ranges`` gives inclusive bounds of variables (None: unbounded) from outer to inner; the
    result equals ``e`` wherever every variable is inside its range.
    """
    return Simplifier(dict(ranges)).expr(e)


def bounds(e: Expr, ranges: Mapping[str, Range]) -> Range:
    """Inclusive interval that contains the index expression ``e`` for variables in ``ranges``."""
    s = Simplifier(dict(ranges))
    return s.bounds(s.linear(e))


def scope_of(kernel: Kernel) -> Simplifier:
    """The outermost scope of ``kernel``: its sizes, which are never negative."""
    return Simplifier({v.name: (0, None) for v in kernel.sizes})


def simplify(kernel: Kernel, keep: frozenset[str] = frozenset(), tighten: bool = False) -> Kernel:
    """``kernel`` with simplified indices, without dead guards and empty or one-trip loops.

    Loops named in ``keep``, and loops bound to a machine unit, stay even when they run once. With
    ``tighten`` guards around the whole body of a serial or parallel loop become its bounds.
    """
    scope = scope_of(kernel)
    scope.tighten = tighten
    body = scope.block(kernel.body, keep)
    return kernel if body is kernel.body else kernel.with_(body=body)
