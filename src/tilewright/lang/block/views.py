"""Arrays behind flat offsets: ``base + i * stride + j`` becomes an index ``[i, j]`` of an array of that shape.

Shapes are tried from the array's own dimensions down to one flat dimension; one is taken when every access
provably splits: the part below each stride stays below it, given the loops and the guards around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Kernel, Store

#: Strides of a view, outermost first; the last is 1.
Strides = tuple[int, ...]


def viewed(kernel: Kernel, arrays: Mapping[str, tuple[int, Sequence[int]]]) -> Kernel:
    """``kernel`` with its flat arguments as arrays of as many dimensions as every access allows.

    ``arrays``: for each flat argument its number of elements and the strides of its own dimensions (in elements).
    """
    survey = _Views()
    survey.found = {name: [] for name in arrays}
    survey.block(kernel.body, frozenset())
    candidates = {name: _candidates(*arrays[name], survey.found[name]) for name in arrays}
    trial = _Views()
    trial.candidates = candidates
    trial.block(kernel.body, frozenset())
    shaped = {}
    for name, views in trial.candidates.items():
        if views:
            shaped[name] = kernel.arg(name).with_(shape=tuple(map(ex.idx, shape_of(arrays[name][0], views[0]))))
    final = _Views()
    final.chosen = {name: (shaped[name], trial.candidates[name][0]) for name in shaped}
    body = final.block(kernel.body, frozenset())
    return kernel.with_(args=tuple(shaped.get(b.name, b) for b in kernel.args), body=body)


def shape_of(size: int, strides: Strides) -> tuple[int, ...]:
    """Extents of a dense view of ``size`` elements."""
    return (size // strides[0], *(a // b for a, b in pairwise(strides)))


def _candidates(size: int, strides: Sequence[int], forms: Sequence[Linear]) -> list[Strides]:
    """Views to try: the array's own, then what the accesses step by, most dimensions first (flat is what remains)."""
    own = sorted({s for s in strides if s > 1}, reverse=True)
    used = sorted({abs(c) for f in forms for c in f.terms.values() if abs(c) > 1 and size % abs(c) == 0}, reverse=True)
    tried = [(*c, 1) for known in (own, used[:6]) for n in range(min(len(known), 5), 0, -1) for c in combinations(known, n)]
    return [v for v in dict.fromkeys(tried) if size % v[0] == 0 and v[0] < size and all(a % b == 0 for a, b in pairwise(v))]


@dataclass(slots=True)
class _Views(Simplifier):
    """Walks a kernel knowing the bounds and guards at every access: collects, tests or rewrites offsets."""

    found: dict[str, list[Linear]] = field(default_factory=dict)
    candidates: dict[str, list[Strides]] = field(default_factory=dict)
    chosen: dict[str, tuple[Buffer, Strides]] = field(default_factory=dict)

    def _store(self, s: Store) -> Store:
        indices = self.access(s.buffer, s.indices)
        value = self.expr(s.value)
        if s.buffer.name in self.chosen:
            return replace(s, buffer=self.chosen[s.buffer.name][0], indices=indices, value=value)
        return replace(s, value=value)

    def _node(self, e: Expr) -> Expr:
        if isinstance(e, Load):
            indices = self.access(e.buffer, e.indices)
            if e.buffer.name in self.chosen:
                return Load(self.chosen[e.buffer.name][0], indices)
        return Simplifier._node(self, e)

    def access(self, b: Buffer, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        if b.name not in self.found and b.name not in self.candidates and b.name not in self.chosen:
            return indices
        offset = self.linear(indices[0])
        if b.name in self.found:
            self.found[b.name].append(offset)
        if b.name in self.candidates:
            self.candidates[b.name] = [v for v in self.candidates[b.name] if self.split(offset, v) is not None]
        if b.name in self.chosen:
            parts = self.split(offset, self.chosen[b.name][1])
            assert parts is not None  # the trial found the same
            return tuple(map(self.render, parts))
        return indices

    def split(self, offset: Linear, strides: Strides) -> list[Linear] | None:
        """The index in each dimension, or None when it cannot be shown that the parts stay in theirs."""
        out: list[Linear] = []
        rest = offset
        for s in strides[:-1]:
            terms = {a: c // s for a, c in rest.terms.items() if c % s == 0}
            for k in (rest.const // s, rest.const // s + 1):
                part = Linear(terms, k)
                left = rest.plus(part, -s)
                if self.nonneg(left) and self.nonneg(Linear({}, s - 1).plus(left, -1)):
                    break
            else:
                return None
            out.append(part)
            rest = left
        return [*out, rest]


def elements(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements of memory from the first to the last of an array (strides in elements, none negative)."""
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if prod(shape) else 0
