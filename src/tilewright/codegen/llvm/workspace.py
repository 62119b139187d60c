"""Static placement of the buffers a kernel declares: function frame, workspace, or per thread.

Within one block a buffer lives from the first to the last statement that names it. Buffers whose
lives overlap get disjoint bytes; others share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Stmt, While, own_exprs, walk
from tilewright.ir.stmt import Store as StoreStmt

ALIGN = 64
#: Buffers up to this many bytes live in the function's frame.
FRAME_BYTES = 4096
#: The same for buffers in a register memory, which LLVM then moves to registers where it can.
REGISTER_BYTES = 65536

FRAME, SHARED, THREAD, HEAP = "frame", "shared", "thread", "heap"


@dataclass(frozen=True, slots=True)
class Place:
    """``where`` is FRAME, SHARED (workspace), THREAD (a thread's slice of it) or HEAP; ``offset`` in bytes."""

    where: str
    offset: int = 0


@dataclass(slots=True)
class Plan:
    """Places by buffer name; total bytes shared and per thread."""

    places: dict[str, Place] = field(default_factory=dict)
    shared: int = 0
    thread: int = 0


@dataclass(slots=True)
class _Life:
    buffer: Buffer
    where: str
    first: int
    last: int


def plan(kernel: Kernel, is_register: Callable[[Buffer], bool]) -> Plan:
    """Places of all buffers declared in ``kernel`` (only calls that are emitted as instructions are left)."""
    lives: list[_Life] = []
    out = Plan()
    _collect(kernel.body, SHARED, False, [0], is_register, lives, out)
    for where in (SHARED, THREAD):
        total = _place([x for x in lives if x.where == where], out)
        if where == SHARED:
            out.shared = total
        else:
            out.thread = total
    return out


def _collect(
    b: Block, where: str, vector: bool, clock: list[int], is_register: Callable[[Buffer], bool], lives: list[_Life], out: Plan
) -> None:
    here: dict[str, _Life] = {}
    for s in b.stmts:
        start = clock[0]
        clock[0] += 1
        match s:
            case Alloc():
                _declare(s.buffer, where, vector, start, is_register, here, out)
                continue
            case Block():
                _collect(s, where, vector, clock, is_register, lives, out)
            case For():
                inner = THREAD if s.kind is LoopKind.PARALLEL else where
                _collect(s.body, inner, vector or s.kind is LoopKind.VECTOR, clock, is_register, lives, out)
            case While():
                _collect(s.body, where, vector, clock, is_register, lives, out)
            case If():
                _collect(s.then, where, vector, clock, is_register, lives, out)
                if s.orelse:
                    _collect(s.orelse, where, vector, clock, is_register, lives, out)
        for name in here.keys() & _named(s) if here else ():
            here[name].first = min(here[name].first, start)
            here[name].last = clock[0]
    lives.extend(x for x in here.values() if x.last >= 0)


def _declare(
    b: Buffer, where: str, vector: bool, now: int, is_register: Callable[[Buffer], bool], here: dict[str, _Life], out: Plan
) -> None:
    static = all(isinstance(e, ex.Const) for e in b.physical_shape())
    limit = REGISTER_BYTES if is_register(b) else FRAME_BYTES
    if vector or (static and b.nbytes <= limit) or (is_register(b) and not static):
        out.places[b.name] = Place(FRAME)
    elif not static:
        out.places[b.name] = Place(HEAP)
    else:
        here[b.name] = _Life(b, where, now + 1 << 60, -1)
        out.places[b.name] = Place(where)


def _named(s: Stmt) -> set[str]:
    """Names of all buffers in ``s``."""
    out: set[str] = set()
    for t in walk(s):
        out |= {ld.buffer.name for e in own_exprs(t) for ld in ex.loads(e)}
        if isinstance(t, StoreStmt):
            out.add(t.buffer.name)
        elif isinstance(t, Call):
            out |= {w.buffer.name for w in t.args}
    return out


def _place(lives: list[_Life], out: Plan) -> int:
    """Lowest free offset for each buffer, largest first; the total."""
    placed: list[tuple[int, int, _Life]] = []
    for x in sorted(lives, key=lambda x: -x.buffer.nbytes):
        size = -(-x.buffer.nbytes // ALIGN) * ALIGN
        offset = 0
        for lo, hi, _ in sorted((p for p in placed if p[2].first < x.last and x.first < p[2].last), key=lambda p: p[0]):
            if offset + size <= lo:
                break
            offset = max(offset, hi)
        placed.append((offset, offset + size, x))
        out.places[x.buffer.name] = Place(x.where, offset)
    return max((hi for _, hi, _ in placed), default=0)
