"""Static memory planning: where every intermediate tensor of a network lives in one arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.model import Graph

#: Alignment of every tensor, bytes: a cache line and the widest vector.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Byte offsets of buffers in an arena of ``size`` bytes; ``unshared`` is what it would take without reuse."""

    offsets: Mapping[str, int]
    size: int
    unshared: int


def plan_memory(
    graph: Graph, reads: Sequence[Sequence[str]], writes: Sequence[Sequence[str]], outside: frozenset[str] = frozenset()
) -> MemoryPlan:
    """Offsets for everything the steps write, except ``outside`` (whose memory is the caller's).

    ``reads[k]`` and ``writes[k]`` are the buffers step k touches, in execution order. Largest
    first, each buffer takes the lowest place free during its whole life. Outputs live to the end.
    """
    life = {n: l for n, l in _lifetimes(graph, reads, writes).items() if n not in outside}
    sizes = {n: _aligned(max(graph.buffers[n].nbytes, 1)) for n in life}
    placed: list[tuple[int, int, tuple[int, int]]] = []  # offset, end, life
    offsets: dict[str, int] = {}
    for name in sorted(life, key=lambda n: (-sizes[n], life[n][0], n)):
        first, last = life[name]
        offset = 0
        for lo, hi, (f, l) in sorted(placed):
            if f <= last and first <= l and lo < offset + sizes[name] and offset < hi:
                offset = hi
        offsets[name] = offset
        placed.append((offset, offset + sizes[name], life[name]))
    return MemoryPlan(offsets, max((hi for _, hi, _ in placed), default=0), sum(sizes.values()))


def _lifetimes(graph: Graph, reads: Sequence[Sequence[str]], writes: Sequence[Sequence[str]]) -> dict[str, tuple[int, int]]:
    """First and last step that touches each written buffer."""
    life: dict[str, tuple[int, int]] = {}
    for k, (ins, outs) in enumerate(zip(reads, writes, strict=True)):
        for name in outs:
            first, _ = life.get(name, (k, k))
            life[name] = (first, k)
        for name in ins:
            s = graph.storage(name)
            if s in life:
                life[s] = (life[s][0], k)
    for v in graph.outputs:
        s = graph.storage(v.buffer.name)
        if s in life:
            life[s] = (life[s][0], len(reads))
    return life


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
