"""Programs for Gemminis of other types than int8: compiled, run on the functional model, and, bit for bit, by exact fractions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from tests.codegen.commands.test_conv_forms import KERNELS
from tests.sim.naive import Naive
from tests.sim.naive_numbers import Floats

from tilewright.codegen.commands import Host, check, generate, parse_program, stream, walk
from tilewright.hw import Machine, load_machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.sim.gemmini import Configuration, isa
from tilewright.sim.gemmini.generated import execute, starts, timed
from tilewright.sim.gemmini.offload import Offload
from tilewright.sim.gemmini.words import decode
from tilewright.space.default import default_schedule
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

KINDS = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i16": np.int16}
#: Of the type that sums have on their way down a column, what one rounding is at most, relative to the sum of magnitudes.
ROUNDING = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}


def gemm(m: int, n: int, k: int, inputs: str, out: str, value: str, start: str = "0.0") -> Kernel:
    product = "a[i_1, k] * b[k, j_1]" if inputs == "f32" else "f32(a[i_1, k]) * f32(b[k, j_1])"
    bias = "" if start == "0.0" else f"d: f32[{n}], "
    return parse(f"""
@kernel
def gemm(a: {inputs}[{m}, {k}], b: {inputs}[{k}, {n}], {bias}c: {out}[{m}, {n}]):
    t = alloc(f32[{m}, {n}])
    for i in range({m}):
        for j in range({n}):
            t[i, j] = {start}
    for i_1 in range({m}):
        for j_1 in range({n}):
            for k in range({k}):
                t[i_1, j_1] += {product}
    for i_2 in range({m}):
        for j_2 in range({n}):
            c[i_2, j_2] = {value}
""")


def drawn(kernel: Kernel, seed: int = 0) -> dict[str, np.ndarray]:
    """Arguments of standard normal numbers; bf16 by its bits."""
    rng = np.random.default_rng(seed)
    return {b.name: rng.standard_normal(b.static_shape).astype(KINDS[str(b.dtype)]).view(b.dtype.to_numpy()) for b in kernel.args}


def values(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.view(KINDS[dtype]).astype(np.float64)


def program_of(kernel: Kernel, machine: Machine, forms: tuple[str, ...] = ()):
    program = generate(default_schedule(kernel, machine).kernel, machine, forms=forms)
    check(program, machine)
    assert parse_program(str(program)) == program
    return program


def by_fractions(program, machine: Machine, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the program's words make of the arrays, in exact arithmetic rounded where the hardware rounds."""
    c, at = Configuration.of(machine), starts(program)
    base = min(at.values())
    memory = bytearray(max(at[b.name] + b.nbytes for b in program.arrays) - base)
    for name, a in arrays.items():
        memory[at[name] - base :][: a.nbytes] = b""
        memory[at[name] - base : at[name] - base] = a.tobytes()
    naive = Naive(c.dim, c.spad_rows, c.acc_rows, memory, base, Floats(c.inputs, c.column))
    naive.run([isa.Fence() if w is None else decode(*w) for w in stream(program, machine, at)])
    return {n: np.frombuffer(memory, a.dtype, a.size, at[n] - base).reshape(a.shape) for n, a in arrays.items()}


CASES = [
    ("f32", "f32", "f32", "t[i_2, j_2]", "d[j]"),
    ("f32", "f32", "f32", "max(t[i_2, j_2] * 0.3, 0.0)", "0.0"),
    ("bf16", "bf16", "bf16", "bf16(max(t[i_2, j_2], 0.0))", "0.0"),
    ("bf16", "f32", "bf16", "bf16(t[i_2, j_2] * 0.3)", "d[j]"),
    ("bf16", "bf16", "f32", "t[i_2, j_2]", "0.0"),
    ("f16", "f16", "f16", "f16(t[i_2, j_2])", "d[j]"),
    ("f16", "f32", "f32", "t[i_2, j_2]", "0.0"),
]


@pytest.mark.parametrize("forms", [(), ("loop_ws",)], ids=["explicit", "forms"])
@pytest.mark.parametrize(("inputs", "column", "out", "value", "start"), CASES)
def test_products_of_floats(inputs: str, column: str, out: str, value: str, start: str, forms: tuple[str, ...]) -> None:
    machine = load_machine(f"gemmini:dim=4,inputs={inputs},column={column},scratchpad_bytes=4096,accumulator_bytes=2048")
    kernel = gemm(11, 9, 14, inputs, out, value, start)
    program = program_of(kernel, machine, forms)
    assert not any(isinstance(i, Host) for i in walk(program.body)) and ("loop_ws." in str(program)) == bool(forms)
    arrays = drawn(kernel)
    exact = by_fractions(program, machine, {n: a.copy() for n, a in arrays.items()})
    execute(program, machine, arrays)
    for name, array in arrays.items():
        assert array.tobytes() == exact[name].tobytes(), name
    a, b = (values(arrays[n], inputs) for n in "ab")
    bias = values(arrays["d"], "f32") if start != "0.0" else 0.0
    total, size = a @ b + bias, np.abs(a) @ np.abs(b) + np.abs(bias)
    scale = 0.3 if "0.3" in value else 1.0
    want = np.maximum(total * scale, 0) if "max" in value else total * scale
    bound = (14 + 6) * ROUNDING[column] * size * scale + 2 * ROUNDING[out] * np.abs(want)
    assert (np.abs(values(arrays["c"], out) - want) <= bound).all()


def test_larger_products_by_their_epilogues() -> None:
    """Default machines and schedules: the epilogue leaves with the moves, and rows take several times the bus of int8."""
    cycles = {}
    for name, inputs in (("gemmini.fp32", "f32"), ("gemmini.bf16", "bf16")):
        machine = load_machine(name)
        kernel = gemm(
            70, 100, 130, inputs, inputs, f"{inputs}(max(t[i_2, j_2] * 0.5, 0.0))" if inputs != "f32" else "max(t[i_2, j_2] * 0.5, 0.0)"
        )
        program = program_of(kernel, machine)
        assert "mvout_scaled_relu(" in str(program)
        arrays = drawn(kernel)
        execute(program, machine, arrays)
        a, b = (values(arrays[n], inputs) for n in "ab")
        error = np.abs(values(arrays["c"], inputs) - np.maximum(a @ b / 2, 0))
        assert (error <= 16 * ROUNDING[inputs] * (np.abs(a) @ np.abs(b))).all()
        cycles[name] = timed(program, machine).cycles
    assert cycles["gemmini.bf16"] < cycles["gemmini.fp32"]


def test_sums_of_int16_wrap_and_saturate() -> None:
    machine = load_machine("gemmini:inputs=i16")
    kernel = parse(str(gemm(20, 18, 40, "i16", "i16", "i16(min(max(t[i_2, j_2], -32768), 32767))")).replace("f32(a", "(a").replace(
        "f32(b", "(b").replace("f32", "i32").replace("= 0.0", "= 0"))  # fmt: skip
    program = program_of(kernel, machine)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**15), 2**15, (20, 40)).astype(np.int16), rng.integers(-(2**15), 2**15, (40, 18)).astype(np.int16)
    a[:10] //= 1000
    c = np.zeros((20, 18), np.int16)
    execute(program, machine, {"a": a, "b": b, "c": c})
    wrapped = (a.astype(np.int64) @ b).astype(np.int32)
    np.testing.assert_array_equal(c, np.clip(wrapped, -(2**15), 2**15 - 1))


def images(inputs: str) -> Iterator[tuple[Kernel, int, int]]:
    """Convolutions of images with the channels last: rows and columns, stride."""
    for rows, cols, step in ((6, 7, 1), (9, 8, 2)):
        p, q = (rows - 3) // step + 1, (cols - 3) // step + 1
        x, w = (f"{v}" if inputs == "f32" else f"f32({v})" for v in (f"x[n_1, p_1 * {step} + r, q_1 * {step} + s, c]", "w[r, s, c, k_1]"))
        relu = "max(t[n_2, p_2, q_2, k_2], 0.0)"
        yield (
            parse(f"""
@kernel
def conv(x: {inputs}[2, {rows}, {cols}, 5], w: {inputs}[3, 3, 5, 18], y: {inputs}[2, {p}, {q}, 18]):
    t = alloc(f32[2, {p}, {q}, 18])
    for n in range(2):
        for p in range({p}):
            for q in range({q}):
                for k in range(18):
                    t[n, p, q, k] = 0.0
    for n_1 in range(2):
        for p_1 in range({p}):
            for q_1 in range({q}):
                for k_1 in range(18):
                    for r in range(3):
                        for s in range(3):
                            for c in range(5):
                                t[n_1, p_1, q_1, k_1] += {x} * {w}
    for n_2 in range(2):
        for p_2 in range({p}):
            for q_2 in range({q}):
                for k_2 in range(18):
                    y[n_2, p_2, q_2, k_2] = {relu if inputs == "f32" else f"{inputs}({relu})"}
"""),
            step,
            p,
        )


@pytest.mark.parametrize(("name", "inputs"), [("gemmini.fp32", "f32"), ("gemmini.bf16", "bf16")])
def test_convolutions_of_floats(name: str, inputs: str) -> None:
    machine = load_machine(name)
    for kernel, step, _ in images(inputs):
        program = program_of(kernel, machine)
        assert "mvout_relu(" in str(program)
        arrays = drawn(kernel)
        execute(program, machine, arrays)
        x, w, y = (values(arrays[n], inputs) for n in "xwy")
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::step, ::step]
        want, size = (np.einsum("npqcrs,rsck->npqk", f(windows), f(w)) for f in (np.asarray, np.abs))
        assert (np.abs(y - np.maximum(want, 0)) <= 16 * ROUNDING[inputs] * size).all()


@pytest.mark.parametrize("inputs", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["few channels", "strides of two"])
def test_convolutions_of_floats_by_the_loop(inputs: str, name: str) -> None:
    """With zeros around the images, a bias, scaled and rectified results: runs of loop_conv_ws, several pixels a row among them."""
    machine = load_machine(f"gemmini:dim=4,inputs={inputs},column=f32")
    text = re.sub(r"i8\(min\(max\(round\(f32\(i32\((.*)\)\) \* (.*)\), 0.0\), 127.0\)\)", r"OUT(max((\1) * \2, 0.0))", str(KERNELS[name]))
    text = re.sub(r"\+= (.*) \* (.*)", r"+= WIDE(\1) * WIDE(\2)", text).replace(" = 0\n", " = 0.0\n").replace("i8(0)", "OUT(0.0)")
    text = text.replace("i32", "f32").replace("i8", inputs)
    kernel = parse(text.replace("WIDE", "" if inputs == "f32" else "f32").replace("OUT", "" if inputs == "f32" else inputs))
    space = Space(kernel, machine)
    program = generate(space.schedule(space.sample(1, np.random.default_rng(0))[0]).kernel, machine, forms=("loop_conv_ws",))
    check(program, machine)
    assert "loop_conv_ws." in str(program) and ("pixels=2" in str(program)) == (name == "few channels")
    arrays = drawn(kernel)
    exact = by_fractions(program, machine, {n: a.copy() for n, a in arrays.items()})
    execute(program, machine, arrays)
    assert arrays["y"].tobytes() == exact["y"].tobytes()


@pytest.mark.parametrize(
    ("name", "inputs", "sums", "other"),
    [("gemmini", "f32", "f32", "gemmini.fp32"), ("gemmini.bf16", "f16", "f32", "gemmini.fp16"), ("gemmini.fp32", "i8", "i32", "gemmini")],
)
def test_kernels_of_other_types_are_refused_by_name(name: str, inputs: str, sums: str, other: str) -> None:
    """The reason names both types, and the machine that multiplies these."""
    kernel = gemm(16, 16, 16, inputs, "f32", "t[i_2, j_2]")
    if inputs == "i8":
        kernel = parse(str(kernel).replace("f32(a", "(a").replace("f32(b", "(b").replace("f32", "i32").replace("0.0", "0"))
    offload = Offload(load_machine(name))
    assert offload.prepare(kernel) is None
    (reason,) = offload.refused.values()
    assert f"it sums products of {inputs} and {inputs} in {sums}, {name} products of" in reason and f"({other} does)" in reason


def test_the_verifier_knows_the_types_of_words() -> None:
    program = program_of(gemm(16, 16, 16, "f32", "f32", "t[i_2, j_2]"), load_machine("gemmini.fp32"))
    wrong = parse_program(str(program).replace("a: f32[16, 16]", "a: i32[16, 16]"))
    with pytest.raises(CodegenError, match="a holds i32, operand src f32"):
        check(wrong, load_machine("gemmini.fp32"))
    with pytest.raises(CodegenError, match=r"is for gemmini\.fp32, not for gemmini"):
        check(program, load_machine("gemmini"))
    late = parse_program(str(program).replace("a: f32[16, 16]", "a: f32[8, 16]"))
    with pytest.raises(CodegenError, match="lie outside a, which has 512"):
        check(late, load_machine("gemmini.fp32"))
