"""Instructions of the shapes the literature maps onto, small enough to execute in the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tilewright.ir import stmt as st
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Expr, Var, cast, evaluate
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import DType, i32

Instr = Callable[..., Kernel]


def _instruction(
    name: str, extents: Mapping[str, int], out: str, a: str, b: str, types: tuple[DType, DType, DType] = (i32, i32, i32), op: str = "+"
) -> Kernel:
    """``c[out] += a[a] * b[b]``; index lists are text such as "c, q + s"."""
    names = {n: Var(n) for n in extents}
    last = {n: e - 1 for n, e in extents.items()}

    def element(operand: str, indices: str, dtype: DType) -> Any:
        index: tuple[Expr, ...] = eval(f"({indices},)" if indices else "()", {}, names)
        return buffer(operand, dtype, tuple(evaluate(i, last) + 1 for i in index), memory="reg")[index]

    c, x, y = element("c", out, types[2]), element("a", a, types[0]), element("b", b, types[1])
    product = cast(x, types[2]) * cast(y, types[2])
    body: st.Stmt = st.store(c, product if op == "+" else cast(x + y, types[2]), op)
    for n, e in reversed(list(extents.items())):
        body = st.loop(n, 0, e, body, kind=st.LoopKind.UNROLL)
    return Kernel(name, (c.buffer, x.buffer, y.buffer), st.block(body), instruction=f"test/{name}")


@pytest.fixture(scope="session")
def instruction() -> Instr:
    """Builds the semantics of an instruction."""
    return _instruction


@pytest.fixture(scope="session")
def shapes() -> dict[str, Kernel]:
    """mma, gemv, dot, outer product, axpy; extents divide nothing, so that padding is exercised."""
    return {
        "mma": _instruction("mma", {"i": 2, "j": 3, "k": 4}, "i, j", "i, k", "k, j"),
        "gemv": _instruction("gemv", {"i": 3, "k": 4}, "i", "k", "i, k"),
        "dot": _instruction("dot", {"k": 4}, "", "k", "k"),
        "outer": _instruction("outer", {"i": 3, "j": 2}, "i, j", "i", "j"),
        "axpy": _instruction("axpy", {"i": 4}, "i", "", "i"),
        "row": _instruction("row", {"k": 2, "q": 3, "c": 2, "s": 2}, "k, q", "c, q + s", "k, c, s"),
    }


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, np.ndarray]]:
    """Interprets kernels on one set of random arguments: run(kernel, seed) -> arrays by name."""

    def go(kernel: Kernel, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        arrays = {}
        for b in kernel.args:
            low, high = (0, 7) if not b.dtype.signed else (-7, 8)
            arrays[b.name] = np.asarray(rng.integers(low, high, b.static_shape)).astype(b.dtype.to_numpy())
        interpret(kernel, arrays)
        return arrays

    return go
