"""Groups of operations as kernels, with names made canonical so that equal groups give equal kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.graph.model import Operation
from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, all_buffers, loops, map_exprs, map_stmts, written_buffers

_NAME_LENGTH = 48


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel and the graph buffers it is called with, in the order of its arguments."""

    kernel: Kernel
    arguments: tuple[str, ...]
    writes: tuple[str, ...]


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
    body: list[Stmt] = []
    for op in operations:
        for nest in op.nests:
            body.extend(Alloc(private.pop(n)) for n in sorted(written_buffers(nest) & private.keys()))
            body.append(nest)
    arguments = (*reads, *results)
    name = "_".join(op.kind.lower() for op in operations)[:_NAME_LENGTH].rstrip("_")
    kernel = canonical(Kernel(name, tuple(buffers[n] for n in arguments), Block(tuple(body))))
    return KernelCall(kernel, arguments, tuple(results))


def canonical(kernel: Kernel) -> Kernel:
    """The kernel with names ``stem_N`` numbered afresh in order of appearance.

    Two groups of equal structure become equal kernels, which are compiled once.
    """
    names: dict[str, str] = {}
    taken: set[str] = {kernel.name}
    for n in _names_in_order(kernel):
        stem = n.rsplit("_", 1)[0]
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
