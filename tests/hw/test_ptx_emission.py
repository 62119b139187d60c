"""PTX templates are compared with what LLVM's NVPTX backend prints for the same instruction.

LLVM has intrinsics for wmma and mma.sync, so their mnemonics, shapes and register counts are
checked against an independent implementation. It has none for wgmma: its text is checked against
the PTX ISA's grammar and register counts.
"""

from __future__ import annotations

import re
from functools import cache

import llvmlite.binding as llvm
import pytest

from tilewright.hw import PTX, Instruction, load_machine

LLVM_TYPES = {"f32": "float", "f64": "double", "s32": "i32"}


@cache
def target() -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("nvptx64-nvidia-cuda").create_target_machine(cpu="sm_80", features="+ptx78", opt=2)


def intrinsic(i: Instruction) -> str:
    operation, word, *_ = (i.family or "").split("_")
    size = i.name.rpartition(".")[2]
    acc = "f32" if i.operand("c").dtype.bits == 32 else "f16"
    types = f"{acc}.{acc}" if word == "f16" else word
    if operation == "mma":
        return f"llvm.nvvm.mma.{size}.row.col.{types}"
    return f"llvm.nvvm.wmma.{size}.mma{'.xor.popc' if word == 'b1' else ''}.row.col.{types}"


def llvm_registers(i: Instruction, operand: str) -> list[str]:
    assert isinstance(i.emit, PTX)
    f = i.emit.registers(operand)
    half = i.operand(operand).dtype.kind == "float" and i.operand(operand).dtype.bits == 16
    return ["<2 x half>" if half else LLVM_TYPES.get(f.ptx, "i32")] * f.count


def printed_by_llvm(i: Instruction) -> str:
    """The mnemonic LLVM prints; parsing fails if our register counts are not its signature."""
    parameters = [t for o in ("a", "b", "c") for t in llvm_registers(i, o)]
    result = f"{{{', '.join(llvm_registers(i, 'c'))}}}"
    signature = f"{result} @{intrinsic(i)}"
    arguments = ", ".join(f"{t} %x{n}" for n, t in enumerate(parameters))
    text = f"""
        define void @f(ptr %p, {arguments}) {{
          %r = call {signature}({arguments})
          store {result} %r, ptr %p
          ret void
        }}
        declare {signature}({", ".join(parameters)})"""
    module = llvm.parse_assembly(text)
    module.verify()
    found = re.search(r"^\s*(w?mma\.\S+)", target().emit_assembly(module), re.M)
    assert found, "LLVM printed no mma"
    return found[1]


def warp_instructions() -> list[Instruction]:
    return [i for i in load_machine("cuda.sm80").instructions if isinstance(i.emit, PTX)]


@pytest.mark.parametrize("i", warp_instructions(), ids=lambda i: i.name)
def test_warp_instruction_is_what_llvm_prints(i: Instruction) -> None:
    assert isinstance(i.emit, PTX)
    assert i.emit.text.split()[0] == printed_by_llvm(i)
    assert i.emit.text.endswith(" {c}, {a}, {b}, {c};")


def test_wgmma_covers_every_n_with_half_n_registers() -> None:
    family = load_machine("cuda.sm90").family("wgmma_bf16")
    assert [dict(i.variant)["n"] for i in family] == list(range(8, 257, 8))
    for i in family:
        n = dict(i.variant)["n"]
        assert isinstance(i.emit, PTX)
        assert i.emit.text.startswith(f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{c}}, {{a}}, {{b}}, ")
        assert i.emit.registers("c").count == n // 2
        assert (i.emit.registers("a").count, i.emit.registers("a").ptx) == (1, "b64")
        assert {o.memory for o in i.operands if o.role == "in"} == {"smem"}


def test_documented_shapes_are_complete() -> None:
    names = {i.name for i in load_machine("cuda.sm80").instructions}
    for word in ("f16", "f16_f32", "bf16", "s8"):
        assert {f"wmma_{word}.m16n16k16", f"wmma_{word}.m32n8k16", f"wmma_{word}.m8n32k16"} <= names
    assert {"wmma_tf32.m16n16k8", "wmma_f64.m8n8k4", "wmma_s4.m8n8k32", "wmma_b1.m8n8k128"} <= names
    assert {"mma_bf16.m16n8k8", "mma_bf16.m16n8k16", "mma_f16_f32.m16n8k8", "mma_f16_f32.m16n8k16"} <= names
    assert {i.family for i in load_machine("cuda.sm70").instructions} == {"wmma_f16", "wmma_f16_f32"}


def test_peak_rates_are_the_published_ones() -> None:
    """Dense TFLOP/s of the data sheets: V100 125, A100 312 (f16) and 156 (tf32), H100 SXM 989 (bf16)."""

    def peak(machine: str, family: str) -> float:
        m = load_machine(machine)
        return max(i.ops * i.per_cycle for i in m.family(family)) * m.cores * m.clock_hz / 1e12

    assert peak("cuda.sm70", "wmma_f16_f32") == pytest.approx(125, rel=0.01)
    assert peak("cuda.sm80", "mma_f16_f32") == pytest.approx(312, rel=0.01)
    assert peak("cuda.sm80", "mma_tf32") == pytest.approx(156, rel=0.01)
    assert peak("cuda.sm80", "mma_s8") == pytest.approx(624, rel=0.01)
    assert peak("cuda.sm90", "wgmma_bf16") == pytest.approx(989, rel=0.01)
