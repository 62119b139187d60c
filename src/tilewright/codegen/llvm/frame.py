"""What is known while one LLVM function is being written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tilewright.codegen.llvm.index import Atom, Poly
from tilewright.codegen.llvm.values import Value
from tilewright.codegen.llvm.workspace import Plan
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Kernel, Stmt
from tilewright.ir.types import DType


@dataclass(slots=True)
class Module:
    """One emitted module: functions written so far, and what they need from outside.

    ``declares`` maps a symbol to its LLVM declaration, ``definitions`` a symbol to a function text taken from a
    machine instruction. ``analyses`` keeps what passes found out about a statement, by pass and identity.
    ``has_plain_loops``: some loop is left to LLVM to unroll or vectorise.
    """

    kernel: Kernel
    machine: Any
    symbol: str
    plan: Plan
    functions: list[str] = field(default_factory=list)
    declares: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    analyses: dict[tuple[str, int], Any] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    counter: int = 0
    has_plain_loops: bool = False

    def keep(self, s: Stmt) -> None:
        """Hold on to a statement made while writing: what is found out about it is filed under its identity."""
        self.analyses["made", id(s)] = s

    def number(self) -> int:
        """A number not given before (orders atoms, distinguishes functions)."""
        self.counter += 1
        return self.counter

    @property
    def vector_bits(self) -> int:
        return self.machine.vector_bits or 128


@dataclass(slots=True)
class Storage:
    """Where a buffer lives: pointer, extents in memory order, known alignment in bytes.

    ``lanes`` > 0: a buffer declared inside a vector loop, one copy per lane, lanes innermost.
    ``room`` > 0: a buffer in the function's frame, with room for that many elements: those that no
    guard protects may be read and written back unchanged. ``filled`` > 0: elements of its rows that are
    in use; those behind, up to the next row, may be overwritten.
    """

    buffer: Buffer
    ref: str
    extents: tuple[Poly, ...]
    align: int
    lanes: int = 0
    room: int = 0
    filled: int = 0


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Vectors of partial results of a reduction: one for each element that it goes to.

    ``refs`` gives the vector by the values of the unrolled loop variables ``names`` that choose the
    element; ``dtype`` is the type of a partial result.
    """

    names: tuple[str, ...]
    refs: dict[tuple[int, ...], str]
    dtype: DType
    lanes: int


@dataclass(slots=True)
class Frame:
    """The state of one function: where text goes, what names mean, which lanes are active.

    ``lanes`` is 0 in scalar code. ``mask`` (None: all lanes) says which lanes execute; with
    ``some_lane`` at least one is known to; with ``overhang`` lanes beyond the loop's end exist (masked
    off). ``thread`` is the i64 thread number inside a parallel loop, "" outside.
    """

    module: Module
    w: Writer
    env: dict[str, Poly]
    storages: dict[str, Storage]
    workspace: str = "%workspace"
    pool: str = "%pool"
    thread: str = ""
    lanes: int = 0
    mask: Value | None = None
    some_lane: bool = True
    overhang: bool = False
    #: Vector accumulators that stand for reduction targets, by the name of the target buffer.
    accumulators: dict[str, Accumulator] = field(default_factory=dict)

    def atom(self, ref: str, lo: int | None = None, hi: int | None = None, lanes: int = 0) -> Poly:
        """A new index atom for an i64 that has a name."""
        return Poly.of(Atom(ref, self.module.number(), lo, hi, lanes))

    @contextmanager
    def bound(self, name: str, value: Poly) -> Iterator[None]:
        """Within the context loop variable ``name`` is ``value``."""
        self.env[name] = value
        try:
            yield
        finally:
            del self.env[name]

    @contextmanager
    def masked(self, mask: Value | None, some_lane: bool) -> Iterator[None]:
        """Within the context the active lanes are ``mask``."""
        saved = self.mask, self.some_lane
        self.mask, self.some_lane = mask, some_lane
        try:
            yield
        finally:
            self.mask, self.some_lane = saved

    @contextmanager
    def vector(self, lanes: int, mask: Value | None) -> Iterator[None]:
        """Within the context code is written for ``lanes`` iterations at once."""
        saved = self.lanes, self.mask, self.some_lane, self.overhang
        self.lanes, self.mask, self.some_lane, self.overhang = lanes, mask, True, mask is not None
        try:
            yield
        finally:
            self.lanes, self.mask, self.some_lane, self.overhang = saved
