"""Which instruction unrolled loops stand for: told by operands, memories, types, and the extents where several agree in those."""

from __future__ import annotations

import pytest

from tilewright.cost.issue import issued
from tilewright.hw import load_machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Load, cast, idx
from tilewright.ir.stmt import Store
from tilewright.ir.types import f16, f32, f64
from tilewright.lang import parse


def update(a: str, c: str, memory: str) -> Store:
    """``c += a * b`` on types ``a`` and ``c`` in ``memory``."""
    wide = {"f16": f16, "f32": f32, "f64": f64}[c]
    kernel = parse(f"@kernel\ndef k(a: {a}[1], b: {a}[1], c: {c}[1]):\n    c[0] += a[0]\n")
    x, y, z = (buffer.with_(memory=memory) for buffer in kernel.args)
    return Store(z, (idx(0),), cast(Load(x, (idx(0),)), wide) * cast(Load(y, (idx(0),)), wide), "+")


@pytest.mark.parametrize("name", ["cuda.sm80", "mali.g76"])
def test_instructions_are_told_apart(name: str) -> None:
    """Each is found by its own store and extents, or another one that is the same in all of it."""
    machine = load_machine(name)
    for i in (i for i in machine.instructions if i.operands and not i.sets):
        stores = [s for s in st.walk(i.kernel.body) if isinstance(s, Store) and s.op == "+"]
        if len(stores) != 1:
            continue
        memories = {o.name: o.memory for o in i.operands}
        where = {b.name: b.with_(memory=memories[b.name]) for b in i.kernel.args if b.name in memories}
        s = stores[0]
        value = ex.transform(s.value, lambda e, w=where: Load(w[e.buffer.name], e.indices) if isinstance(e, Load) else None)  # type: ignore[misc]
        placed = Store(where[s.buffer.name], s.indices, value, s.op)
        extents = [a.extent for a in i.axes]
        found = issued(machine, placed, extents)
        assert found is not None
        assert sorted(a.extent for a in found.axes) == sorted(extents)
        assert [(o.memory, o.dtype) for o in found.operands] == [(o.memory, o.dtype) for o in i.operands]


def test_other_types_are_no_instruction() -> None:
    machine = load_machine("cuda.sm80")
    assert issued(machine, update("f16", "f32", "reg")) is not None
    assert issued(machine, update("f16", "f64", "reg")) is None


def test_other_memories_are_no_instruction() -> None:
    machine = load_machine("cuda.sm80")
    assert issued(machine, update("f16", "f32", machine.main_memory.name)) is None
