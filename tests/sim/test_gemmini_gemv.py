"""Products with a vector, as products with a matrix of one row: on either side of the matrix, by commands and by runs of ``loop_ws``."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codegen.commands import Command, Host, check, generate, walk
from tilewright.hw import load_machine
from tilewright.lang import parse
from tilewright.sim.gemmini.generated import execute
from tilewright.space import Space
from tilewright.space.single_rows import single_rows

MACHINE = load_machine("gemmini")
SIZES = ((64, 96), (37, 50), (2, 33), (130, 16))


def vector_first(k: int, n: int, value: str) -> str:
    return f"""
@kernel
def gemv(x: i8[{k}], w: i8[{k}, {n}], y: i8[{n}]):
    s = alloc(i32[{n}])
    for j in range({n}):
        s[j] = 0
    for j_1 in range({n}):
        for k in range({k}):
            s[j_1] += x[k] * w[k, j_1]
    for j_2 in range({n}):
        y[j_2] = {value}
"""


def matrix_first(k: int, n: int, value: str) -> str:
    return vector_first(k, n, value).replace(f"w: i8[{k}, {n}]", f"w: i8[{n}, {k}]").replace("x[k] * w[k, j_1]", "w[j_1, k] * x[k]")


VALUES = {"saturated": "i8(min(max(s[j_2], -128), 127))", "scaled": "i8(min(max(round(f32(s[j_2]) * 0.01), 0.0), 127.0))"}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("forms", [(), ("loop_ws",)], ids=["commands", "loop_ws"])
@pytest.mark.parametrize("order", [vector_first, matrix_first], ids=["x W", "W x"])
def test_products_with_a_vector(order, forms: tuple[str, ...], value: str) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    for k, n in SIZES:
        kernel = single_rows(parse(order(k, n, VALUES[value])))
        space = Space(kernel, MACHINE)
        program = generate(space.schedule(space.default()).kernel, MACHINE, forms=forms)
        check(program, MACHINE)
        assert not any(isinstance(i, Host) for i in walk(program.body))
        names = {i.word for i in walk(program.body) if isinstance(i, Command)}
        assert any(w.startswith("loop_ws") for w in names) is bool(forms)
        x, w = (rng.integers(-128, 128, s).astype(np.int8) for s in ((k,), (k, n)))
        y = np.zeros((1, n), np.int8)
        execute(program, MACHINE, {"x": x[None], "w": w if order is vector_first else np.ascontiguousarray(w.T), "y": y})
        total = x.astype(np.int32) @ w.astype(np.int32)
        want = np.clip(total, -128, 127) if value == "saturated" else np.clip(np.rint(total.astype("f4") * np.float32(0.01)), 0, 127)
        np.testing.assert_array_equal(y[0], want.astype(np.int8), err_msg=f"{k} x {n}")
        assert want.std() > 0
