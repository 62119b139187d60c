"""The check passes right code and catches small faults: one element, a tail, a lost update, an unwritten output."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var, cast
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Block, Kernel, loop, store
from tilewright.lang import parse
from tilewright.runtime import build
from tilewright.runtime.module import Module
from tilewright.runtime.verify import check, poisoned, random_array, tolerance, unit_roundoff
from tilewright.util.errors import ExecutionError, RuntimeFailure

I, J, K = Var("i"), Var("j"), Var("k")


def test_right_code_passes(hand: SimpleNamespace) -> None:
    report = check(hand.axpy(2), oracle=interpret, trials=5)
    assert report.trials == 5 and 0 <= report.worst["y"] <= 1
    check(hand.axpy(1), sizes={"N": 40}, oracle=interpret)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("%s = fadd float %p, %zv", "%s = fsub float %p, %zv"),
        ("%more = icmp slt i64 %i, %end", "%less = sub i64 %end, 1\n  %more = icmp slt i64 %i, %less"),
        ("%p = fmul float %again, %alpha", "%p = fmul float %again, 0x3FF0010000000000"),
        ("store float %s, ptr %yi", "store float %s, ptr %xi"),
    ],
)
def test_faults_are_caught(hand: SimpleNamespace, right: str, wrong: str) -> None:
    assert hand.text.count(right) == 1
    module = Module.from_llvm(hand.axpy_kernel(), hand.text.replace(right, wrong), "axpy", thread_workspace=64, threads=1)
    with pytest.raises(RuntimeFailure, match=r"axpy, seed \d+: y\[\d+\] is .* expected .* elements are wrong\)"):
        check(module, sizes={"N": 16}, oracle=interpret)


def test_integers_have_to_be_equal() -> None:
    a, b = buffer("a", ty.i8, (50,)), buffer("b", ty.i32, (50,))
    kernel = Kernel("widen", (a, b), Block((loop("i", 0, 50, store(b[I], cast(a[I], ty.i32))),)))
    text = """
    define void @widen(ptr %args, ptr %sizes, ptr %w, ptr %pool) {
      %a = load ptr, ptr %args
      %b.p = getelementptr ptr, ptr %args, i64 1
      %b = load ptr, ptr %b.p
      br label %head
    head:
      %i = phi i64 [ 0, %0 ], [ %next, %head ]
      %ai = getelementptr i8, ptr %a, i64 %i
      %v = load i8, ptr %ai
      %x = EXTEND i8 %v to i32
      %bi = getelementptr i32, ptr %b, i64 %i
      store i32 %x, ptr %bi
      %next = add i64 %i, 1
      %more = icmp slt i64 %next, 50
      br i1 %more, label %head, label %done
    done:
      ret void
    }
    """
    right = Module.from_llvm(kernel, text.replace("EXTEND", "sext"), "widen", threads=1)
    assert check(right, oracle=interpret).worst == {"b": 0.0}
    with pytest.raises(RuntimeFailure, match=r"b\[\d+\] is .* expected .* exactly \(\d+ of 50"):
        check(Module.from_llvm(kernel, text.replace("EXTEND", "zext"), "widen", threads=1), oracle=interpret, seed=1)


def test_tolerance_grows_with_the_accumulation() -> None:
    def product(k: int, dtype: ty.DType) -> Kernel:
        a, c = buffer("a", ty.f32, (4, k)), buffer("c", dtype, (4,))
        return Kernel("k", (a, c), Block((loop("i", 0, 4, loop("k", 0, k, store(c[I], a[I, K], "+"))),)))

    one, many = tolerance(product(1, ty.f32)), tolerance(product(1000, ty.f32))
    assert one == pytest.approx(68 * 2**-24) and many == pytest.approx(4064 * 2**-24)
    assert tolerance(product(10, ty.f16)) > 1e3 * one
    assert unit_roundoff(ty.bf16) == 2**-8


def test_random_arrays_cover_the_type() -> None:
    rng = np.random.default_rng(0)
    for dtype in (ty.i8, ty.u8, ty.Int(5), ty.UInt(3)):
        values = random_array(dtype, (5000,), rng)
        assert (values.min(), values.max()) == dtype.range and values.dtype == dtype.to_numpy()
    assert random_array(ty.boolean, (100,), rng).mean() not in (0, 1)
    assert random_array(ty.i64, (100,), rng, limit=3).max() == 2
    assert abs(random_array(ty.f16, (100,), rng)).max() <= 1
    assert np.isnan(poisoned(ty.f32, (2,))).all() and (poisoned(ty.i8, (2,)) == 127).all()


def test_indices_stay_in_range() -> None:
    """A gather is given indices its table has."""
    from tilewright.runtime.verify import index_limit

    table, where, out = buffer("t", ty.f32, (7,)), buffer("w", ty.i64, (9,)), buffer("o", ty.f32, (9,))
    kernel = Kernel("gather", (table, where, out), Block((loop("i", 0, 9, store(out[I], table[cast(where[I], ty.index)])),)))
    assert index_limit(kernel, where, {}) == 7
    assert index_limit(kernel, table, {}) is None


def test_other_arguments_are_refused(hand: SimpleNamespace) -> None:
    other = Kernel("other", hand.axpy_kernel().args[:2], Block(()))
    with pytest.raises(RuntimeFailure, match="axpy and other have different arguments"):
        check(hand.axpy(1), other, oracle=interpret)


def filled_with(value: str) -> Module:
    """Code that writes ``value`` (LLVM float) to both elements of y, or nothing; for a program that writes 1.0."""
    y = buffer("y", ty.f32, (2,))
    kernel = Kernel("ones", (y,), Block((loop("i", 0, 2, store(y[I], 1.0)),)))
    stores = [f"%p{n} = getelementptr float, ptr %y, i64 {n}\n store float {value}, ptr %p{n}" for n in range(2)] if value else []
    text = "define void @ones(ptr %args, ptr %sizes, ptr %w, ptr %pool) {\n %y = load ptr, ptr %args\n" + "\n ".join(
        [*stores, "ret void\n}"]
    )
    return Module.from_llvm(kernel, text, "ones", threads=1)


def test_errors_just_beyond_the_bound_are_caught() -> None:
    """The bound is 64 roundings of 2^-24 (of the size of the result), and nothing wider."""
    within, beyond = 1.0 + 62 * 2.0**-24, 1.0 + 66 * 2.0**-24
    assert 0.9 < check(filled_with(hex_float(within)), oracle=interpret).worst["y"] < 1.0
    with pytest.raises(RuntimeFailure, match=r"2 of 2 elements are wrong"):
        check(filled_with(hex_float(beyond)), oracle=interpret)


def hex_float(value: float) -> str:
    """A float as LLVM writes it exactly."""
    return f"0x{struct.unpack('>Q', struct.pack('>d', value))[0]:016X}"


def test_an_output_that_is_not_written_is_caught_even_where_zero_is_right() -> None:
    y = buffer("y", ty.f32, (4,))
    kernel = Kernel("clear", (y,), Block((loop("i", 0, 4, store(y[I], 0.0)),)))
    text = "define void @clear(ptr %args, ptr %sizes, ptr %w, ptr %pool) {\n ret void\n}"
    with pytest.raises(RuntimeFailure, match=r"y\[0\] is .*nan.* expected .*4 of 4 elements are wrong"):
        check(Module.from_llvm(kernel, text, "clear", threads=1), oracle=interpret)


def test_what_goes_outside_of_its_array_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build(parse("@kernel\ndef before(x: f32[4]):\n    for i in range(4):\n        if i != 9:\n            x[i - 1] = 1.0"))
    ran: list[str] = []
    monkeypatch.setattr(Module, "__call__", lambda self, *arrays, **sizes: ran.append(self.kernel.name))
    with pytest.raises(ExecutionError, match=r"x\[-1\] is outside x"):
        check(module)
    assert not ran


def test_what_surely_leaves_its_array_is_not_built() -> None:
    kernel = parse("@kernel\ndef behind(x: f32[4], y: f32[4]):\n    for i in range(4):\n        y[i] = x[i + 1]")
    with pytest.raises(ExecutionError, match=r"behind: x\[4\] is outside x, whose shape is \[4\]"):
        build(kernel, cache=False)
