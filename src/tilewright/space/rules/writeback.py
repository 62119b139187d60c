"""Where a tile is written back: the one element-wise nest that reads the reduction's result just where it was computed."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Alloc
from tilewright.schedule.schedule import Schedule
from tilewright.space.rules.contraction import dimension_loops
from tilewright.space.stages import Stage, stages


def reader_of(sch: Schedule, name: str) -> tuple[Stage, Stage] | None:
    """The reduction into the local buffer ``name`` and the only other nest that uses its result; None if there are more or none."""
    every = stages(sch.kernel)
    stage = next(s for s in every if s.is_reduction and s.output.name == name)
    readers = [s for s in every if name in s.inputs() and s.root is not stage.root]
    local = any(isinstance(s, Alloc) and s.buffer.name == name for s in sch.kernel.body.stmts)
    if len(readers) != 1 or not local or readers[0].opaque or readers[0].is_reduction:
        return None
    return stage, readers[0]


def split_alike(sch: Schedule, name: str) -> None:
    """Split the reader's loops where the reduction walks one dimension with several (``group * 32 + member``)."""
    found = reader_of(sch, name)
    if found is None:
        return
    stage, reader = found
    own, theirs = dimension_loops(stage.target(), stage), _read_loops(reader, name)
    for mine, other in zip(own or (), theirs or (), strict=False):
        if len(mine) > 1 and len(other) == 1:
            (loop,) = other
            for n in sorted(mine, key=lambda n: mine[n])[:-1]:
                loop = sch.apply("split", loop, stage.loops[n])[0]


def epilogue(sch: Schedule, name: str) -> tuple[Stage, dict[str, str]] | None:
    """The nest that writes back ``name``, and its loops by the reduction's; None when it does not read element by element."""
    found = reader_of(sch, name)
    if found is None:
        return None
    stage, reader = found
    reads = [a for a in reader.reads() if a.buffer.name == name]
    own, theirs = dimension_loops(stage.target(), stage), _read_loops(reader, name)
    if own is None or theirs is None or len(reads) != 1:
        return None
    at: dict[str, str] = {}
    for d, (mine, other) in enumerate(zip(own, theirs, strict=True)):
        if _start(stage.target().indices[d]) != _start(reads[0].indices[d]) or sorted(mine.values()) != sorted(other.values()):
            return None
        by_coefficient = {c: n for n, c in other.items()}
        at |= {n: by_coefficient[c] for n, c in mine.items()}
    return (reader, at) if all(stage.loops[n] == reader.loops[t] for n, t in at.items()) else None


def _read_loops(reader: Stage, name: str) -> list[dict[str, int]] | None:
    return dimension_loops(next(a for a in reader.reads() if a.buffer.name == name), reader)


def _start(index: Expr) -> int:
    """The index when all loops are at their first iteration."""
    return int(ex.evaluate(index, dict.fromkeys(ex.free_vars(index), 0)))
