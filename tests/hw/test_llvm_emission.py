"""Emitted LLVM text is compiled for its target, and executed where this CPU has the instruction."""

from __future__ import annotations

import ctypes
import re
from functools import cache

import llvmlite.binding as llvm
import numpy as np
import pytest

from tilewright.hw import LLVM, Instruction, Machine, list_machines, load_machine
from tilewright.hw.llvm_text import LLVMFunction, function
from tilewright.ir.interpreter import interpret

#: The machine instruction that LLVM must select.
MNEMONICS = {
    "maddubs": ("vpmaddubsw", "vpmaddwd|vpdpwssd"),  # with VNNI, LLVM fuses the second step and the sum
    "maddubs_u7": ("vpmaddubsw", "vpmaddwd|vpdpwssd"),
    "dpbusd": ("vpdpbusd",),
    "dpbf16ps": ("vdpbf16ps",),
    "tdpbssd": ("ldtilecfg", "tdpbssd"),
    "tdpbf16ps": ("ldtilecfg", "tdpbf16ps"),
    "sdot": ("sdot",),
    "sdot_lane": ("sdot",),
}


@cache
def initialised() -> bool:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return True


def emitting() -> list[tuple[Machine, Instruction]]:
    machines = [load_machine(n) for n in list_machines()]
    return [(m, i) for m in machines for i in m.instructions if isinstance(i.emit, LLVM)]


def module_text(f: LLVMFunction, operands: list[str]) -> str:
    """The function and ``void run(ptr, ptr, ptr)`` that loads all operands, calls it, and stores the result."""
    loads = "\n".join(f"  %v{n} = load {t}, ptr %p{n}, align 1" for n, t in enumerate(f.parameters))
    args = ", ".join(f"{t} %v{n}" for n, t in enumerate(f.parameters))
    out = operands.index(f.result)
    pointers = ", ".join(f"ptr %p{n}" for n in range(len(operands)))
    return "\n".join(
        [
            *f.declares,
            f.definition,
            f"define void @run({pointers}) {{\n{loads}",
            f"  %r = call {f.parameters[out]} @{f.symbol}({args})",
            f"  store {f.parameters[out]} %r, ptr %p{out}, align 1\n  ret void\n}}",
        ]
    )


def compiled(m: Machine, i: Instruction) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    initialised()
    f = function(i)
    module = llvm.parse_assembly(module_text(f, [o.name for o in i.operands]))
    module.verify()
    target = llvm.Target.from_triple(m.target.triple)
    return module, target.create_target_machine(cpu=m.target.cpu, features=m.target.feature_string, opt=3)


@pytest.mark.parametrize(("m", "i"), emitting(), ids=lambda x: x.name)
def test_compiles_to_the_instruction(m: Machine, i: Instruction) -> None:
    module, target = compiled(m, i)
    text = target.emit_assembly(module)
    for mnemonic in MNEMONICS[i.name]:
        assert re.search(mnemonic, text)


def run(m: Machine, i: Instruction, arrays: dict[str, np.ndarray]) -> None:
    module, target = compiled(m, i)
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    pointers = [ctypes.c_void_p(arrays[o.name].ctypes.data) for o in i.operands]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers))(engine.get_function_address("run"))(*pointers)


def available() -> list[tuple[Machine, Instruction]]:
    host = Machine.host()
    return [(host, i) for i in host.instructions if isinstance(i.emit, LLVM)]


def operands(i: Instruction, rng: np.random.Generator) -> dict[str, np.ndarray]:
    ranges = {c.operand: (c.lo, c.hi) for c in i.value_ranges}
    out = {}
    for o in i.operands:
        if o.dtype.kind == "bfloat":
            values = rng.standard_normal(o.shape).astype(np.float32)
            out[o.name] = (values.view(np.uint32) >> 16).astype(np.uint16)
        elif o.dtype.is_float:
            out[o.name] = rng.standard_normal(o.shape).astype(o.dtype.to_numpy())
        else:
            lo, hi = ranges.get(o.name, o.dtype.range)
            out[o.name] = rng.integers(lo, hi, o.shape, o.dtype.to_numpy(), endpoint=True)
    return out


@pytest.mark.parametrize(("m", "i"), available(), ids=lambda x: x.name)
def test_execution_equals_the_kernel(m: Machine, i: Instruction) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        arrays = operands(i, rng)
        want = {k: v.copy() for k, v in arrays.items()}
        if i.operands[0].dtype.bits == 32 and not i.operands[0].dtype.is_float:
            want["c"] //= 2  # both wrap at 2**31: keep away from it to compare the products
            arrays["c"] //= 2
        interpret(i.kernel, want)
        run(m, i, arrays)
        if i.operands[0].dtype.is_float:
            np.testing.assert_allclose(arrays["c"], want["c"], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(arrays["c"], want["c"])


@pytest.mark.parametrize(("name", "operand", "other"), [("maddubs", "b", ("a", 255)), ("maddubs_u7", "a", ("b", -128))])
def test_value_range_is_tight(name: str, operand: str, other: tuple[str, int]) -> None:
    """At the ends of the range the hardware is exact; one step beyond it saturates."""
    host = Machine.host()
    if name not in {i.name for i in host.instructions}:
        pytest.skip("this CPU has no AVX-512BW")
    i = host.instruction(name)
    (limit,) = i.value_ranges
    for value, exact in ((limit.lo, True), (limit.hi, True), (limit.hi + 1, False)):
        dtypes = {o.name: o.dtype.to_numpy() for o in i.operands}
        arrays = {o.name: np.zeros(o.shape, dtypes[o.name]) for o in i.operands}
        arrays[operand][...] = value
        arrays[other[0]][...] = other[1]
        want = {k: v.copy() for k, v in arrays.items()}
        interpret(i.kernel, want)
        run(host, i, arrays)
        assert np.array_equal(arrays["c"], want["c"]) is exact, (value, arrays["c"][0], want["c"][0])


def test_instruction_without_llvm_emission_is_refused() -> None:
    with pytest.raises(Exception, match="no LLVM emission"):
        function(load_machine("x86.avx512").instruction("fma"))
