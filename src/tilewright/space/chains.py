"""Chains: stages that hand rows to one another, from one contraction to another.

In ``softmax(Q K^T) V`` a row of the result needs one row of the weights, and that one row of the scores: rows
can be finished in blocks, one after the other, and what is passed inside a block never leaves the caches.
Which loops walk such rows is read off the indices alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Var
from tilewright.space.stages import Stage

#: Rows of a block at least: with fewer, the passes over what every block reads again cost more than is saved.
FEWEST_ROWS = 4
#: Part of the core's own cache that the values inside a block take by default: what the block reads needs the rest.
SHARE = 4


@dataclass(frozen=True, slots=True)
class Shared:
    """A loop of the last stage that all stages of a chain have.

    ``own`` is the loop of each stage (by position) that walks it, ``dims`` the dimension of each local buffer it walks.
    """

    loop: str
    own: Mapping[int, str]
    dims: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages that may run together for a block of iterations of ``row``.

    ``batch`` are the other loops they share. ``members`` are positions of stages in program order, ``links`` those of
    contractions among them; ``local`` are the buffers that only pass values inside, in the order they are written.
    ``beside`` are members right before the last one that store another result (what a softmax keeps of each row).
    """

    members: tuple[int, ...]
    links: tuple[int, ...]
    batch: tuple[Shared, ...]
    row: Shared
    local: tuple[str, ...]
    beside: tuple[int, ...] = ()

    @property
    def shared(self) -> tuple[Shared, ...]:
        """All loops that the stages share, the row loop last."""
        return (*self.batch, self.row)

    def row_bytes(self, every: Sequence[Stage]) -> int:
        """Bytes of all values inside for one row (of one batch); sums of contractions stay in registers."""
        sums = {every[n].output.name for n in self.links}
        inside = {b.name: b for n in self.members if (b := every[n].output).name in self.local and b.name not in sums}
        total = 0
        for b in inside.values():
            walked = {s.dims[b.name] for s in self.shared}
            total += prod(e for d, e in enumerate(b.static_shape) if d not in walked) * b.dtype.nbytes
        return max(total, 1)


def chain_of(every: Sequence[Stage], private: Set[str]) -> Chain | None:
    """The chain that ends with the last of ``every`` stages, or None; ``private`` are the local buffers of the kernel.

    A chain has a contraction that needs the result of another, and a loop over rows along which an operand of
    one of them is used again and again. What comes before it is element by element.
    """
    if not every or any(s.opaque for s in every):
        return None
    found = [s for loop in every[-1].spatial if (s := _shared(every, private, loop)) is not None]
    for row in reversed(found):
        links = tuple(n for n in sorted(row.own) if every[n].factors(masked=True) is not None and every[n].is_reduction)
        reused = any(not a.moved_by(row.own[n]) for n in links for a in every[n].reads())
        complete = all(n in row.own for n, s in enumerate(every) if s.is_reduction)
        if complete and reused and _connected(every, links):
            members = tuple(sorted(row.own))
            batch = tuple(s for s in found if s is not row and set(s.own) == set(members))
            local = tuple(dict.fromkeys(every[n].output.name for n in members if every[n].output.name in private))
            beside = tuple(n for n in members[:-1] if every[n].output.name not in private)
            return Chain(members, links, batch, row, local, beside)
    return None


def _shared(every: Sequence[Stage], private: Set[str], loop: str) -> Shared | None:
    """``loop`` of the last stage, followed through everything computed from one another at the same row."""
    own: dict[int, str] = {}
    dims: dict[str, int] = {}
    whole: set[str] = set()  # read by other rows too: complete before the chain starts
    pending = [(len(every) - 1, loop)]
    while pending or (pending := _beside(every, private, own, dims)):
        n, name = pending.pop()
        s = every[n]
        if s.store is None or name not in s.spatial or s.loops[name] != every[-1].loops[loop] or own.setdefault(n, name) != name:
            return None
        for buffer, d in _walked(s, name, private).items():
            if d is None:
                whole.add(buffer)
                continue
            writers = [k for k, w in enumerate(every) if buffer in st.written_buffers(w.root)]
            if dims.setdefault(buffer, d) != d:
                return None
            for k in writers:
                store = every[k].store
                at = store.indices[d] if store is not None else None
                if not isinstance(at, Var):
                    return None
                if own.get(k) != at.name:
                    pending.append((k, at.name))
    written = {b for n in own for b in st.written_buffers(every[n].root)}
    outside = {b for n, s in enumerate(every) if n not in own for b in st.read_buffers(s.root)}
    return None if whole & written or outside & written else Shared(loop, own, dims)


def _beside(every: Sequence[Stage], private: Set[str], own: Mapping[int, str], dims: Mapping[str, int]) -> list[tuple[int, str]]:
    """Stages right before the last that store a result of their own made of rows of the chain, and their loops over them."""
    first = next((n + 1 for n in reversed(range(len(every) - 1)) if every[n].is_reduction or every[n].output.name in private), 0)
    out = []
    for n in range(first, len(every) - 1):
        s = every[n]
        assert s.store is not None  # opaque stages are refused before
        made = [ld for ld in ex.loads(s.store.value) if any(ld.buffer.name == every[k].output.name for k in own)]
        loops = {ld.indices[dims[ld.buffer.name]] for ld in made if ld.buffer.name in dims}
        walked = loops.pop() if len(loops) == 1 else None
        if n not in own and isinstance(walked, Var) and s.store.op is None and any(i == walked for i in s.store.indices):
            out.append((n, walked.name))
    return out


def _walked(s: Stage, loop: str, private: Set[str]) -> dict[str, int | None]:
    """The dimension that ``loop`` walks in the buffer ``s`` stores to and in local ones it reads (None: not the same one in every use)."""
    assert s.store is not None  # opaque stages are refused before
    uses: dict[str, list[tuple[ex.Expr, ...]]] = {}
    for ld in ex.loads(s.store.value):
        if ld.buffer.name in private:
            uses.setdefault(ld.buffer.name, []).append(ld.indices)
    found: dict[str, int | None] = {}
    for buffer, indices in uses.items():
        dims = [d for d in range(len(indices[0])) if all(i[d] == Var(loop) for i in indices)]
        found[buffer] = dims[0] if dims else None
    at = [d for d, i in enumerate(s.store.indices) if i == Var(loop)]
    if at or s.output.name in private:
        found[s.output.name] = at[0] if at else None
    return found


def _connected(every: Sequence[Stage], links: Sequence[int]) -> bool:
    """Whether one of the contractions ``links`` needs the result of another."""
    for first in links:
        made = {every[first].output.name}
        for s in every[first + 1 :]:
            if made & s.inputs():
                if any(s is every[n] for n in links):
                    return True
                made |= st.written_buffers(s.root)
    return False


def computed_along(every: Sequence[Stage], reader: Stage, loop: str) -> list[str]:
    """Buffers of which ``reader`` needs one element (or row) for each iteration of ``loop``, directly or through others,
    in the order they are written."""
    own = {id(reader.root): loop}
    found: set[str] = set()
    for s in reversed(every):
        if s.store is None or id(s.root) not in own:
            continue
        for ld in ex.loads(s.store.value):
            dims = [d for d, i in enumerate(ld.indices) if i == Var(own[id(s.root)])]
            for w in every:
                if dims and w.store is not None and w.output.name == ld.buffer.name != s.output.name:
                    at = w.store.indices[dims[0]]
                    if isinstance(at, Var):
                        own[id(w.root)] = at.name
                        found.add(w.output.name)
    return [n for n in dict.fromkeys(s.output.name for s in every if s.store is not None) if n in found]
