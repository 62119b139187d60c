"""What a use of a loop form means: one kernel of its start, its update and its finish, on the parts of arrays that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import pack, unpack

from tilewright.hw import LoopForm, Part
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Load, Var
from tilewright.schedule.moves import Move
from tilewright.schedule.nest import copied
from tilewright.schedule.unify import chain_of

#: Sizes of a form's kernel: iterations of the loops around it before and after this one. Without them it has all phases.
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, slots=True)
class Use:
    """How a tile is done by a form: its three parts, and how each matches. The extents are those of the update."""

    form: LoopForm
    start: tuple[Part, Move]
    update: tuple[Part, Move]
    finish: tuple[Part, Move]

    @property
    def phases(self) -> tuple[tuple[Part, Move], ...]:
        return self.start, self.update, self.finish


def semantics(name: str, instruction: str, use: Use, chained: bool) -> tuple[st.Kernel, dict[str, Expr]]:
    """A kernel that does the parts of ``use``, and the values of its sizes other than the counts that it has when ``chained``."""
    sizes: dict[str, Expr] = {}
    args: dict[str, st.Buffer] = {}
    stmts: list[st.Stmt] = []
    taken: set[str] = {BEFORE, AFTER}
    around: dict[Var, None] = {}
    for (part, move), phase in zip(use.phases, (BEFORE, None, AFTER), strict=True):
        kernel, values = part.instruction.sized(move.extents)
        kernel = _inside_of_arrays(kernel, part)
        sizes |= dict(zip((v.name for v in kernel.sizes), values, strict=True))
        args |= {b.name: b for b in kernel.args if b.name not in move.settings and b.name not in args}
        body = st.replace_buffers(kernel.body, args)
        assert isinstance(body, st.Block)  # a block is mapped to a block
        kernel = kernel.with_(body=st.block(_started(part, args), body) if part.instruction.replaces else body)
        around |= {Var(f"{o}_{side}{d}"): None for o, d, _ in part.around for side in ("before", "after")}
        body = copied(_with_settings(kernel.body, move.settings), taken)
        stmts.append(st.If(ex.compare("==", Var(phase), 0), body) if chained and phase else body)
    names = [*map(Var, (BEFORE, AFTER) if chained else ()), *around, *map(Var, sizes)]
    return st.Kernel(name, tuple(args.values()), st.block(*stmts), tuple(names), instruction), sizes


def _started(part: Part, args: Mapping[str, st.Buffer]) -> st.Stmt:
    """Sets what a part reduces to to what has no effect on it."""
    body = chain_of(part.instruction.kernel.body)
    assert body is not None  # it matched
    target = args[body.store.buffer.name]
    value = target.dtype.neutral(body.store.op or "+")
    at = [Var(f"{target.name}_start{d}") for d in range(target.rank)]
    s: st.Stmt = st.Store(target, tuple(at), ex.const(value, target.dtype))
    for v, n in zip(reversed(at), reversed(target.shape), strict=True):
        s = st.For(v, ex.idx(0), n, st.Block((s,)))
    return s


def _inside_of_arrays(kernel: st.Kernel, part: Part) -> st.Kernel:
    """``kernel`` where operands are but the part of them that lies inside their arrays, and zeros elsewhere."""
    new = {b.name: b for b in kernel.args}
    for operand, d, more in part.around:
        b = new[operand]
        inner = b.shape[d] + more - Var(f"{operand}_before{d}") - Var(f"{operand}_after{d}")
        new[operand] = b.with_(shape=(*b.shape[:d], inner, *b.shape[d + 1 :]))

    def node(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or all(o != e.buffer.name for o, _, _ in part.around):
            return None
        indices = list(e.indices)
        inside: Expr | None = None
        for d in (d for o, d, _ in part.around if o == e.buffer.name):
            indices[d] = indices[d] - Var(f"{e.buffer.name}_before{d}")
            for c in (ex.compare(">=", indices[d], 0), ex.compare("<", indices[d], new[e.buffer.name].shape[d])):
                inside = c if inside is None else ex.logical("and", inside, c)
        assert inside is not None
        return ex.where(inside, Load(new[e.buffer.name], tuple(indices)), ex.const(0, e.dtype))

    body = st.map_exprs(kernel.body, lambda e: ex.transform(e, node))
    assert isinstance(body, st.Block)
    return kernel.with_(args=tuple(new.values()), body=body)


def _with_settings(body: st.Block, settings: Mapping[str, int]) -> st.Block:
    def node(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.name in settings:
            return ex.const(unpack("<f", pack("<I", settings[e.buffer.name]))[0], ty.f32)
        return None

    new = st.map_exprs(body, lambda e: ex.transform(e, node))
    assert isinstance(new, st.Block)
    return new
