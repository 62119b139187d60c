"""Element-wise kernels on arrays that lie alike, as kernels on matrices with rows as long as one transfer takes."""

from __future__ import annotations

from math import prod

from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Kernel
from tilewright.space.stages import stages

_ROW, _COLUMN = "row", "column"


def long_rows(kernel: Kernel, machine: Machine) -> Kernel:
    """``kernel`` with its arrays as matrices without layouts; their memory stays as it is.

    ``kernel`` itself unless it is one nest that computes every element of an array from the same elements of others, all of one
    shape and one order in memory. Images have short rows where they have few channels, and many dimensions otherwise: more rows fit one
    transfer of a matrix. Matrices stay where their rows are long enough.
    """
    nests = stages(kernel)
    store = nests[0].store if len(nests) == 1 and not st.allocated(kernel) else None
    if store is None or store.op is not None or not nests[0].loops:
        return kernel
    shape, layout = store.buffer.static_shape, store.buffer.layout
    order = tuple(range(len(shape))) if layout is None else tuple(d for d, _ in layout.dims)
    accesses = [(store.buffer, store.indices), *((ld.buffer, ld.indices) for ld in ex.loads(store.value))]
    place = tuple(map(Var, nests[0].loops))
    alike = all(b.static_shape == shape and b.layout == layout and indices == place for b, indices in accesses)
    if not alike or len(order) != len(shape) or tuple(nests[0].loops.values()) != shape:
        return kernel
    total, short = prod(shape), shape[order[-1]]
    most = _most(machine, kernel)
    columns = max((n for n in range(1, most + 1) if total % n == 0), default=1)
    matrix = sum(n > 1 for n in shape) <= 2
    if total == columns or (matrix and columns <= short) or columns * 2 < min(short, most):
        return kernel
    return _reshaped(kernel, (total // columns, columns))


def _most(machine: Machine, kernel: Kernel) -> int:
    """Elements of a row that one transfer takes from main memory."""
    kinds = {b.dtype for b in kernel.args}
    moved = [t.instruction for t in machine.transfers if t.instruction is not None and t.src == machine.main_memory.name]
    return max(
        (i.axes[-1].extent for i in moved if any(o.memory == machine.main_memory.name and o.dtype in kinds for o in i.operands)), default=0
    )


def _reshaped(kernel: Kernel, shape: tuple[int, int]) -> Kernel:
    store = stages(kernel)[0].store
    assert store is not None  # the caller has looked
    new = {b.name: Buffer(b.name, b.dtype, tuple(map(ex.idx, shape)), b.memory) for b in kernel.args}
    taken = new.keys()
    row, column = (Var(n if n not in taken else f"{n}_1") for n in (_ROW, _COLUMN))

    def moved(e: Expr) -> Expr | None:
        return Load(new[e.buffer.name], (row, column)) if isinstance(e, Load) else None

    body = st.store(Load(new[store.buffer.name], (row, column)), ex.transform(store.value, moved))
    nest = st.loop(row.name, 0, shape[0], st.loop(column.name, 0, shape[1], body))
    return kernel.with_(args=tuple(new[b.name] for b in kernel.args), body=st.block(nest))
