"""Groups of operations as kernels, with names made canonical so that equal groups give equal kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.graph.limits import merged_limits
from tilewright.graph.model import Graph, Operation
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Intrinsic, Load, Var
from tilewright.ir.stmt import (
    Alloc,
    Block,
    For,
    Kernel,
    Stmt,
    Store,
    all_buffers,
    loops,
    map_exprs,
    map_stmts,
    read_buffers,
    substmts,
    written_buffers,
)
from tilewright.space.stages import stage_of

_NAME_LENGTH = 48
#: Stems of the names of buffers: constants, and whatever else a kernel reads.
CONSTANT, OPERAND = "w", "x"


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel and the graph buffers it is called with, in the order of its arguments."""

    kernel: Kernel
    arguments: tuple[str, ...]
    writes: tuple[str, ...]

    def constants(self, graph: Graph) -> frozenset[str]:
        """The arguments of the kernel whose contents ``graph`` knows: their layout is free."""
        pairs = zip(self.kernel.args, self.arguments, strict=True)
        return frozenset(b.name for b, name in pairs if graph.storage(name) in graph.constants)


def operation_kernel(operation: Operation, buffers: Mapping[str, Buffer]) -> KernelCall:
    """One operation as a kernel of its own."""
    return group_kernel([operation], buffers, frozenset(operation.outputs))


def group_kernel(operations: Sequence[Operation], buffers: Mapping[str, Buffer], visible: frozenset[str]) -> KernelCall:
    """The operations as one kernel.

    Arguments are the buffers read from outside, then the results in ``visible``; every other
    result is allocated inside, just before it is first written.
    """
    written = [name for op in operations for name in op.outputs]
    reads = dict.fromkeys(n for op in operations for n in op.inputs if n not in written)
    results = [n for n in written if n in visible]
    private = {b.name: b for op in operations for b in op.temps} | {n: buffers[n] for n in written if n not in visible}
    private_names = list(private)
    body: list[Stmt] = []
    for op in operations:
        for nest in op.nests:
            body.extend(Alloc(private.pop(n)) for n in sorted(written_buffers(nest) & private.keys()))
            body.append(nest)
    arguments = (*reads, *results)
    name = "_".join(op.kind.lower() for op in operations)[:_NAME_LENGTH].rstrip("_")
    nests = inline_chains(_needed(body, visible), frozenset(private_names))
    kernel = canonical(Kernel(name, tuple(buffers[n] for n in arguments), Block(tuple(nests))), frozenset(reads))
    return KernelCall(kernel, arguments, tuple(results))


@dataclass(slots=True)
class _Line:
    """A statement of the body with the buffers it reads and writes (an allocation writes its buffer)."""

    stmt: Stmt
    reads: set[str]
    writes: set[str]

    @staticmethod
    def of(s: Stmt) -> _Line:
        return _Line(s, read_buffers(s), {s.buffer.name} if isinstance(s, Alloc) else written_buffers(s))


def _needed(body: Sequence[Stmt], visible: frozenset[str]) -> list[_Line]:
    """``body`` without the nests whose results nobody reads (a normalisation's statistics, say)."""
    wanted = set(visible)
    out: list[_Line] = []
    for line in map(_Line.of, reversed(body)):
        if line.writes & wanted:
            wanted |= line.reads | line.writes
            out.append(line)
    return out[::-1]


def inline_chains(body: Sequence[_Line], private: frozenset[str]) -> list[Stmt]:
    """``body`` with private element-wise results computed where they are read.

    A chain of element-wise nests (bias, residual, activation) becomes one nest. Only readers that
    are element-wise at the same index take part: a padded or otherwise reused value is not
    computed twice, nor is a value with function calls that is read more than once. Contractions
    read values that were only moved where they came from.
    """
    out = list(body)
    for line in reversed(body):  # a chain's later results first: they may become the only reader of earlier ones
        producer = None if isinstance(line.stmt, Alloc) else element_wise(line.stmt)
        if producer is not None and producer[1].buffer.name in private:
            out = _inlined(out, producer[1].buffer.name)
    return [line.stmt for line in out]


def _inlined(body: list[_Line], name: str) -> list[_Line]:
    """``body`` with ``name`` computed in its only reader, or as it was if the conditions do not hold."""
    writers = [k for k, t in enumerate(body) if name in t.writes and not isinstance(t.stmt, Alloc)]
    readers = [k for k, t in enumerate(body) if name in t.reads]
    if len(writers) != 1 or len(readers) != 1:
        return body
    producer, reader = element_wise(body[writers[0]].stmt), body[readers[0]]
    if producer is None or not (_at_the_same_index(producer[1], reader.stmt) or _only_moved(producer, reader)):
        return body
    iterators, made = producer

    def replaced(e: Expr) -> Expr | None:
        if not (isinstance(e, Load) and e.buffer.name == name):
            return None
        env: dict[str, Expr] = {v.name: i for v, i in zip(iterators, e.indices, strict=True)}
        return ex.cast(ex.substitute(made.value, env), made.buffer.dtype)

    out = list(body)
    out[readers[0]] = _Line.of(map_exprs(reader.stmt, lambda e: merged_limits(ex.transform(e, replaced))))
    return [t for t in out if name not in t.writes]


def _at_the_same_index(made: Store, reader: Stmt) -> bool:
    """Whether ``reader`` is element-wise and uses what ``made`` stores where it stores itself, function calls once."""
    consumer = element_wise(reader)
    if consumer is None:
        return False
    uses = [ld for ld in ex.loads(consumer[1].value) if ld.buffer.name == made.buffer.name]
    costly = any(isinstance(e, Intrinsic) for e in ex.walk(made.value))
    return all(ld.indices == consumer[1].indices for ld in uses) and not (costly and len(uses) > 1)


def _only_moved(producer: tuple[list[Var], Store], reader: _Line) -> bool:
    """Whether a contraction may read what was moved at its source.

    Rows of memory have to stay rows, and lie along a loop of the result, which then runs in lanes: a row that is
    reduced is read many times over, and pays for lying farther from the next one. The source is read nowhere else.
    """
    iterators, made = producer
    source, stage = made.value, stage_of(reader.stmt)
    if not isinstance(source, Load) or source.buffer.name in reader.reads or not iterators or stage.factors() is None:
        return False
    assert stage.store is not None  # it has factors
    others = {n for i in source.indices[:-1] for n in ex.free_vars(i)}
    rows = (
        all(isinstance(i, (Var, Const)) for i in source.indices)
        and source.indices[-1:] == (iterators[-1],)
        and iterators[-1].name not in others
    )
    uses = [ld for ld in ex.loads(stage.store.value) if ld.buffer.name == made.buffer.name]
    return rows and all(isinstance(ld.indices[-1], Var) and ld.indices[-1].name in stage.spatial for ld in uses)


def element_wise(nest: Stmt) -> tuple[list[Var], Store] | None:
    """Iterators and store of a perfect nest that stores every element of a buffer once, at its own index."""
    iterators: list[Var] = []
    extents: list[Expr] = []
    while isinstance(nest, For) and len(nest.body.stmts) == 1:
        iterators.append(nest.var)
        extents.append(nest.extent)
        nest = nest.body.stmts[0]
    if isinstance(nest, Store) and nest.op is None and nest.indices == tuple(iterators) and nest.buffer.shape == tuple(extents):
        return iterators, nest
    return None


def canonical(kernel: Kernel, operands: frozenset[str]) -> Kernel:
    """The kernel with names ``stem_N`` numbered afresh in order of appearance.

    Operands are called ``x`` (``w`` for constants), whatever computed them: two groups of equal
    structure become equal kernels, which are compiled once.
    """
    names: dict[str, str] = {}
    taken: set[str] = {kernel.name}
    for n in _names_in_order(kernel):
        stem = n.rsplit("_", 1)[0]
        if n in operands and stem != CONSTANT:
            stem = OPERAND
        new, k = stem, 0
        while new in taken:
            k += 1
            new = f"{stem}_{k}"
        taken.add(new)
        names[n] = new
    return _renamed(kernel, names)


def _names_in_order(kernel: Kernel) -> list[str]:
    allocs = [s.buffer.name for s in kernel.body.stmts if isinstance(s, Alloc)]
    return list(dict.fromkeys([*(b.name for b in kernel.args), *allocs, *(f.name for f in loops(kernel))]))


def _renamed(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    # By name: the nests still hold the buffers of the import, declarations those with chosen layouts.
    buffers = {b.name: b.with_(name=names[b.name]) for b in all_buffers(kernel)}

    def moved(b: Buffer) -> Buffer:
        return buffers[b.name]

    def node(e: Expr) -> Expr | None:
        match e:
            case Load():
                return Load(moved(e.buffer), e.indices)
            case Var():
                return Var(names[e.name], e.dtype)
        return None

    def stmt(s: Stmt) -> Stmt | None:
        match s:
            case For():
                return replace(s, var=Var(names[s.name], s.var.dtype))
            case Store() | Alloc():
                return replace(s, buffer=moved(s.buffer))
        return None

    body = map_stmts(map_exprs(kernel.body, lambda e: ex.transform(e, node)), stmt)
    assert isinstance(body, Block)  # a block maps to a block
    return kernel.with_(args=tuple(moved(b) for b in kernel.args), body=body)


def arithmetic_operations(kernel: Kernel) -> int:
    """Additions, multiplications and function calls of one run (index arithmetic does not count)."""

    def count(s: Stmt) -> int:
        inner = sum(count(t) for t in substmts(s))
        match s:
            case For():
                return inner * int(s.extent.value) if isinstance(s.extent, Const) else inner
            case Store():
                operations = (e for e in ex.walk(s.value) if isinstance(e, (Binary, Intrinsic)) and e.dtype.kind != ty.INDEX)
                return sum(1 for _ in operations) + (1 if s.op else 0)
        return inner

    return count(kernel.body)
