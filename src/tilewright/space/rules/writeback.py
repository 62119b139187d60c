"""Where a tile is written back: the one element-wise nest that reads the reduction's result just where it was computed."""

from __future__ import annotations

from tilewright.ir.expr import Var
from tilewright.ir.stmt import Alloc, Block
from tilewright.space.stages import Stage, stages


def _reader(body: Block, name: str) -> tuple[Stage, Stage] | None:
    """The reduction into the local buffer ``name`` and the only other nest that uses its result; None if there are more or none."""
    every = stages(body)
    stage = next(s for s in every if s.is_reduction and s.output.name == name)
    readers = [s for s in every if name in s.inputs() and s.root is not stage.root]
    local = any(isinstance(s, Alloc) and s.buffer.name == name for s in body.stmts)
    if len(readers) != 1 or not local or readers[0].opaque or readers[0].is_reduction:
        return None
    return stage, readers[0]


def epilogue(body: Block, name: str) -> tuple[Stage, dict[str, str]] | None:
    """The nest of ``body`` that writes back ``name``, and its loops by the reduction's; None when it does not read element by element."""
    found = _reader(body, name)
    if found is None:
        return None
    stage, reader = found
    reads = [a for a in reader.reads() if a.buffer.name == name]
    if len(reads) != 1:
        return None
    at: dict[str, str] = {}
    for mine, theirs in zip(stage.target().indices, reads[0].indices, strict=True):
        if isinstance(mine, Var) and isinstance(theirs, Var):
            at[mine.name] = theirs.name
        elif mine != theirs:
            return None
    same_extents = all(stage.loops.get(n) == reader.loops.get(t) for n, t in at.items())
    return (reader, at) if same_extents and len(set(at.values())) == len(at) else None
