"""Calling compiled kernels: results, who allocates what, and every refusal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Block, Kernel, loop, store
from tilewright.runtime.dlpack import as_numpy
from tilewright.runtime.module import Module
from tilewright.runtime.signature import Role, signature
from tilewright.util.errors import CodegenError, IRTypeError, RuntimeFailure

I, J, K = Var("i"), Var("j"), Var("k")


@pytest.fixture(scope="module")
def axpy(hand: SimpleNamespace) -> Module:
    return hand.axpy(threads=2)


def vectors(n: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(n)
    return np.array(3.0, np.float32), rng.random(n, np.float32), rng.random(n, np.float32)


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_allocates_its_output(axpy: Module, n: int) -> None:
    alpha, x, z = vectors(n)
    y = axpy(alpha, x, z)
    np.testing.assert_array_equal(y, alpha * x + z)
    assert n == 0 or y.ctypes.data % 64 == 0


def test_out_and_all_arguments_are_used_in_place(axpy: Module) -> None:
    alpha, x, z = vectors(50)
    y = np.full(50, np.nan, np.float32)
    assert axpy(alpha, x, z, out=y) is y
    np.testing.assert_array_equal(y, alpha * x + z)
    w = np.full(50, np.nan, np.float32)
    assert axpy(3.0, x, z, w, N=50) is w
    np.testing.assert_array_equal(w, y)
    assert axpy(alpha, x, z, out={"y": w}) is w
    assert axpy(alpha, x, z, out=[w]) is w


def test_bound_call_sees_new_contents(axpy: Module) -> None:
    alpha, x, z = vectors(20)
    call = axpy.bind(alpha, x, z)
    first = call().copy()
    x += 1
    np.testing.assert_allclose(call(), first + 3, rtol=1e-6)


def test_torch_tensors_without_copies(axpy: Module) -> None:
    torch = pytest.importorskip("torch")
    x, z, y = torch.rand(33), torch.rand(33), torch.empty(33)
    assert axpy(3.0, x, z, out=y) is y
    torch.testing.assert_close(y, 3.0 * x + z)
    with pytest.raises(RuntimeFailure, match="argument x of axpy cannot be exported"):
        axpy(3.0, torch.rand(3, requires_grad=True), torch.rand(3))


def test_dlpack_views_every_type_in_place() -> None:
    torch = pytest.importorskip("torch")
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
        t = torch.arange(12).reshape(3, 4).to(getattr(torch, name))
        view = as_numpy(t, "t")
        np.testing.assert_array_equal(view, t.numpy())
        view[0, 0] = 1
        assert t[0, 0] == 1, "not the same memory"
    t = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    np.testing.assert_array_equal(as_numpy(t, "t"), np.array([1.5, -2.0], ml_dtypes.bfloat16).view(np.uint16))
    strided = torch.arange(12).reshape(3, 4).T
    np.testing.assert_array_equal(as_numpy(strided, "t"), strided.numpy())
    assert as_numpy(torch.empty(0, 3), "t").shape == (0, 3)
    with pytest.raises(RuntimeFailure, match="DLPack type code 5 of 64 bits"):
        as_numpy(torch.zeros(2, dtype=torch.complex64), "t")


def test_concurrent_callers(axpy: Module) -> None:
    """Each running call has its own workspace and its own threads' slices of it."""

    def caller(seed: int) -> None:
        rng = np.random.default_rng(seed)
        x, z = rng.random(4000, np.float32), rng.random(4000, np.float32)
        for n in range(100):
            np.testing.assert_array_equal(axpy(np.float32(n), x, z), np.float32(n) * x + z)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(caller, range(4)))


X = np.zeros(8, np.float32)
READ_ONLY = np.zeros(8, np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((1.0, X), {}, r"axpy takes 3 inputs \(alpha, x, z\) or all 4 arguments, got 2"),
        ((1.0, X, np.zeros(8)), {}, r"argument z of axpy has dtype float64, expected float32\n.*astype\('float32'\)"),
        ((1.0, X, np.zeros(7, np.float32)), {}, "size N has two values: dimension 0 of x is 8, dimension 0 of z is 7"),
        ((1.0, X, X), {"N": 9}, "size N has two values: N=9 was passed, dimension 0 of x is 8"),
        ((1.0, X, X), {"M": 9}, "axpy has no size 'M'"),
        ((1.0, np.zeros((2, 4), np.float32), X), {}, r"size N has two values|argument x of axpy has shape \[2, 4\], expected \[8\]"),
        ((1.0, np.zeros(16, np.float32)[::2], X), {}, r"strides \[8\], expected a C-contiguous array\n.*ascontiguousarray"),
        ((1.0, X, X.astype(">f4")), {}, "dtype >f4, expected float32"),
        ((1.0, X, np.zeros(33, np.uint8)[1:].view(np.float32)), {}, "argument z of axpy is not aligned"),
        ((1.0, X, [0.0] * 8), {}, "argument z of axpy: list is not an array"),
        (("one", X, X), {}, "argument alpha of axpy: str is not an array"),
        ((np.zeros(1, np.float32), X, X), {}, r"argument alpha of axpy has shape \[1\], expected \[\]"),
        ((1.0, X, X), {"out": READ_ONLY}, "argument y of axpy is read-only, and the kernel writes it"),
        ((1.0, X, X), {"out": X}, "argument y, which is written, overlaps argument x"),
        ((1.0, X, np.zeros(8, np.float32), X), {}, "argument y, which is written, overlaps argument x"),
        ((1.0, X, X), {"out": np.zeros(9, np.float32)}, "size N has two values"),
        ((1.0, X, X), {"out": {"w": X}}, "out has 'w'\n.*outputs are: y"),
        ((1.0, X, X), {"out": [X, X]}, r"out has 2 arrays for 1 outputs \(y\)"),
        ((1.0, X, X, np.zeros(8, np.float32)), {"out": X}, "all 4 arguments were passed and out= as well"),
    ],
)
def test_refusals(axpy: Module, arrays: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        axpy(*arrays, **options)


def test_empty_arrays_never_overlap(axpy: Module) -> None:
    base = np.zeros(4, np.float32)
    assert axpy(1.0, base[2:2], base[:0], out=base[2:2]).shape == (0,)


def test_layout_arguments_are_packed_and_unpacked(hand: SimpleNamespace) -> None:
    x, y = buffer("x", ty.f32, (5, 7), layout="1/4 0 1"), buffer("y", ty.f32, (5, 7), layout="1/4 0 1")
    module = hand.scale(x, y, 2 * 5 * 4)
    a = np.arange(35, dtype=np.float32).reshape(5, 7)
    np.testing.assert_array_equal(module(a), 2 * a)
    np.testing.assert_array_equal(module(np.asfortranarray(a)), 2 * a)
    packed = module.pack("x", a)
    assert packed.data.shape == (2, 5, 4)
    np.testing.assert_array_equal(module(packed), 2 * a)
    call = module.bind(a)
    a += 1
    np.testing.assert_array_equal(call(), 2 * a)
    with pytest.raises(RuntimeFailure, match=r"shape \[7, 5\], expected \[5, 7\]"):
        module(a.T)


def test_packed_in_another_layout_is_refused(hand: SimpleNamespace) -> None:
    x, y = buffer("x", ty.f32, (4, 4), layout="1/2 0 1"), buffer("y", ty.f32, (4, 4))
    other = hand.scale(buffer("x", ty.f32, (4, 4), layout="1 0"), y, 16)
    module = hand.scale(x, y, 16)
    with pytest.raises(RuntimeFailure, match="packed in layout '1 0', expected layout '1/2 0 1'"):
        module(other.pack("x", np.zeros((4, 4), np.float32)))
    with pytest.raises(RuntimeFailure, match="argument y of scale has no layout"):
        module.pack("y", np.zeros((4, 4), np.float32))


def test_invalid_code_and_missing_symbols_are_named(hand: SimpleNamespace) -> None:
    with pytest.raises(CodegenError, match=r"LLVM rejects the emitted code.*\n?.*expected"):
        Module.from_llvm(hand.axpy_kernel(), "define void @axpy( {", "axpy", threads=1)
    with pytest.raises(RuntimeFailure, match="cannot load object code with axpy"):
        Module.from_llvm(hand.axpy_kernel(), "define void @other() { ret void }", "axpy", threads=1)


def test_instructions_and_other_things_are_not_programs(hand: SimpleNamespace) -> None:
    from tilewright.runtime.module import build

    with pytest.raises(RuntimeFailure, match="int is not a Kernel"):
        build(3)
    with pytest.raises(IRTypeError, match=r"is the instruction m/axpy"):
        build(hand.axpy_kernel().with_(instruction="m/axpy"))


def roles(*body: Any, outputs: Any = None, shape: tuple[Any, ...] = (8, 6)) -> dict[str, tuple[Role, bool]]:
    kernel = Kernel("k", (A, C if shape == (8, 6) else C.with_(shape=shape)), Block(body))
    return {p.name: (p.role, p.complete) for p in signature(kernel, outputs).parameters}


A, C = buffer("a", ty.f32, (8, 6)), buffer("c", ty.f32, (8, 6))


def zero(i: str = "i", j: str = "j", rows: Any = 8) -> Any:
    return loop(i, 0, rows, loop(j, 0, 6, store(C[Var(i), Var(j)], 0)))


def accumulate(i: str = "i1", j: str = "j1") -> Any:
    v, w = Var(i), Var(j)
    return loop(i, 0, 8, loop(j, 0, 6, loop("k", 0, 6, store(C[v, w], A[v, K] * A[w, K], "+"))))


def test_roles() -> None:
    assert roles(zero(), accumulate()) == {"a": (Role.IN, False), "c": (Role.OUT, True)}
    assert roles(accumulate())["c"] == (Role.INOUT, False)
    assert roles(zero(rows=7), accumulate())["c"] == (Role.INOUT, False)
    assert roles(zero(rows=7))["c"] == (Role.OUT, False)
    assert roles(accumulate(), zero())["c"] == (Role.INOUT, True)
    assert roles(accumulate(), outputs=["c"])["c"] == (Role.OUT, False)


def test_roles_of_tiled_and_interleaved_programs() -> None:
    """Initialised tile by tile, with a partial last tile, just before the tile is accumulated."""
    from tilewright.ir.expr import compare
    from tilewright.ir.stmt import If

    it, ii = Var("it"), Var("ii")
    row = it * 3 + ii
    init = loop("ii", 0, 3, If(compare("<", row, 8), Block((loop("j", 0, 6, store(C[row, J], 0)),))))
    jj = Var("jj")
    row2 = it * 3 + Var("i2")
    add = loop("i2", 0, 3, If(compare("<", row2, 8), Block((loop("jj", 0, 6, store(C[row2, jj], A[row2, jj], "+")),))))
    assert roles(loop("it", 0, 3, init, add))["c"] == (Role.OUT, True)
    assert roles(loop("it", 0, 3, add, init))["c"] == (Role.INOUT, True)
    data_dependent = If(compare("<", A[I, J], 0.0), Block((store(C[I, J], 0),)))
    assert roles(loop("i", 0, 8, loop("j", 0, 6, data_dependent)))["c"] == (Role.OUT, False)


def test_uncovered_outputs_start_at_zero(hand: SimpleNamespace) -> None:
    n = 16
    module = hand.scale(buffer("x", ty.f32, (4, 4)), buffer("y", ty.f32, (4, 4)), n)
    assert module.signature.outputs[0].complete
    half = Kernel("scale", module.kernel.args, Block((loop("i", 0, 2, loop("j", 0, 4, store(module.kernel.args[1][I, J], 0))),)))
    partial = Module(half, module.code, threads=1)
    assert not partial.signature.outputs[0].complete


def test_unknown_outputs_are_refused() -> None:
    with pytest.raises(RuntimeFailure, match="'a' is not an output of k"):
        roles(zero(), outputs=["a"])


def test_too_wide_elements_are_refused() -> None:
    wide = buffer("w", ty.Int(100), (3,))
    with pytest.raises(RuntimeFailure, match=r"Int\(100\) cannot be passed: elements are wider than 64 bits"):
        signature(Kernel("k", (wide,), Block((loop("i", 0, 3, store(wide[I], 0)),))))


def test_attributes(axpy: Module, tmp_path: Any) -> None:
    assert axpy.symbol == "axpy" and "define void @axpy" in axpy.llvm
    assert "axpy:" in axpy.assembly()
    assert "y: f32[N] (out)" in repr(axpy)
    axpy.save(tmp_path / "axpy.o")
    assert (tmp_path / "axpy.o").read_bytes()[:4] == b"\x7fELF"
    with pytest.raises(RuntimeFailure, match="axpy has no argument 'w'"):
        axpy.parameter("w")
