"""Which elements copies of a stage compute, over all iterations: every one? any twice?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tilewright.ir import expr as ex
from tilewright.ir.affine import Dim, IslText, reads_memory
from tilewright.ir.expr import Compare, Const, Expr, Logical, Not
from tilewright.ir.stmt import Block, For, If, Stmt, While
from tilewright.schedule.nest import Place
from tilewright.schedule.region import Box
from tilewright.schedule.stage import Nest, Stage
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    import islpy as isl


class Coverage:
    """The boxes of the copies as isl relations, from iterations of the loops inside ``home`` to elements.

    ``copies`` are the loops that get a copy of the stage, with the box each computes; ``home`` is
    the block that holds stage and consumers. Loops around it are parameters. ScheduleError when
    the loops or boxes cannot be represented exactly.
    """

    def __init__(self, stage: Stage, copies: Sequence[tuple[Place, Box]], home: Block, subject: str):
        import islpy as isl

        self.isl = isl
        self.subject = subject
        self.parameters: dict[str, str] = {}
        self.element = [f"e{d}" for d in range(stage.buffer.rank)]
        self.innermost: list[str] = []
        around = _chain(copies[0][0])
        self.context = self._context([s for s in around[: _index(around, home)] if isinstance(s, For)])
        pieces = [self._copy(place, box, home) for place, box in copies]
        whole = [self._nest(n) for n in stage.nests]
        header = f"[{', '.join(self.parameters.values())}] -> " if self.parameters else ""
        self.maps = [isl.Map(header + p) for p in pieces]
        self.computed: isl.Set = isl.Map(header + whole[0]).range()
        for text in whole[1:]:
            self.computed = self.computed.union(isl.Map(header + text).range())

    def missing(self) -> str | None:
        """An element that the stage computes and no copy does ("" for a scalar)."""
        left = self.computed
        for m in self.maps:
            left = left.subtract(m.range())
        return None if left.is_empty() else self._point(left)

    def repeated(self) -> str | None:
        """Two iterations that compute a common element."""
        for n, m in enumerate(self.maps):
            if not m.is_injective():
                same = m.apply_range(m.reverse())
                both = same.subtract(self.isl.Map.identity(same.get_space()))
                one = self.isl.Set.from_point(both.domain().sample_point())
                return f"({self._point(one)}) and ({self._point(both.intersect_domain(one).range())})"
            for k in range(n):
                if not m.range().is_disjoint(self.maps[k].range()):
                    return f"of {self.innermost[k]} and of {self.innermost[n]}"
        return None

    def _context(self, loops: list[For]) -> list[str]:
        """Bounds of the loops around the block (only what can be said exactly: less context is safe)."""
        text = IslText({}, self.parameters)
        out = []
        for f in loops:
            v, lo, hi = text.expr(f.var), text.expr(f.lo), text.expr(f.hi)
            out += [f"{lo} <= {v}"] if lo else []
            out += [f"{v} < {hi}"] if hi else []
        return out

    def _copy(self, place: Place, box: Box, home: Block) -> str:
        chain = _chain(place)
        inner = chain[_index(chain, home) + 1 :]
        loops = [s for s in inner if isinstance(s, For)]
        guards = _guards(inner)
        self.innermost.append(loops[-1].name)
        text = IslText({f.name: f"i{n}" for n, f in enumerate(loops)}, self.parameters)
        certain = not any(isinstance(s, While) for s in inner) and all(_representable(text, g) for g in guards)
        if not certain or any(reads_memory(e) or text.expr(e) is None for f in loops for e in (f.lo, f.hi)):
            raise ScheduleError(
                f"{self.subject}: which iterations of {loops[-1].name} run is not an affine condition, so elements might be lost",
                hint="name an outer loop, which runs in any case",
            )
        formulas = [*self.context, *text.domain([Dim(f.var, f.lo, f.hi, f.step) for f in loops], guards)]
        for e, lo, hi in zip(self.element, box.lo, box.hi, strict=True):
            formulas += [f"{self._exact(text, lo)} <= {e}", f"{e} < {self._exact(text, hi)}"]
        return self._relation(text, formulas)

    def _nest(self, n: Nest) -> str:
        """Elements one nest of the stage computes (its own loops are projected out by taking the range)."""
        text = IslText({f.name: f"i{k}" for k, f in enumerate(n.loops)}, self.parameters)
        formulas = [*self.context, *text.domain([Dim(f.var, f.lo, f.hi, f.step) for f in n.loops], ())]
        of_dim = {at.dim: (loop, at.offset) for loop, at in n.spatial.items()}
        for d, e in enumerate(self.element):
            if d in of_dim:
                loop, offset = of_dim[d]
                formulas.append(f"{e} = {text.env[loop]} + ({self._exact(text, offset)})")
            else:
                formulas.append(f"{e} = {self._exact(text, n.bounds[d][0])}")
        return self._relation(text, formulas)

    def _exact(self, text: IslText, e: Expr) -> str:
        if (out := text.expr(e)) is None:
            raise ScheduleError(f"{self.subject}: the bound {e} of the region is not affine")
        return out

    def _relation(self, text: IslText, formulas: list[str]) -> str:
        inputs = ", ".join(text.env.values())
        return f"{{ [{inputs}] -> [{', '.join(self.element)}] : {' and '.join(f'({f})' for f in formulas) or 'true'} }}"

    def _point(self, s: Any) -> str:
        point, dims = s.sample_point(), self.isl.dim_type.set
        return ", ".join(str(point.get_coordinate_val(dims, d)) for d in range(s.dim(dims)))


def _chain(place: Place) -> tuple[Stmt, ...]:
    return (*place.ancestors, place.node)


def _index(chain: Sequence[Stmt], s: Stmt) -> int:
    return next(n for n, t in enumerate(chain) if t is s)


def _guards(chain: Sequence[Stmt]) -> list[Expr]:
    return [s.cond if below is s.then else Not(s.cond) for s, below in pairwise(chain) if isinstance(s, If)]


def _representable(text: IslText, cond: Expr) -> bool:
    match cond:
        case Compare():
            return text.expr(cond.a) is not None and text.expr(cond.b) is not None
        case Logical() | Not():
            return all(_representable(text, c) for c in ex.children(cond))
    return isinstance(cond, Const)
