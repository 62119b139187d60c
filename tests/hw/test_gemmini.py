"""Gemmini's instruction words against values worked out by hand from the public ISA tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tilewright.codegen.commands import generate
from tilewright.hw import Bits, RoCC, Steps, load_machine
from tilewright.hw.family import Use
from tilewright.hw.library.gemmini import ONE, gemmini
from tilewright.hw.library.gemmini_config import buildable
from tilewright.hw.library.gemmini_control import Control
from tilewright.hw.library.gemmini_types import BF16, FP16, FP32, INT16, Types
from tilewright.hw.load import load_family
from tilewright.ir import types as ty
from tilewright.ir.interpreter import interpret
from tilewright.mapping.operators import build_operator
from tilewright.sim.gemmini import Configuration
from tilewright.sim.gemmini.generated import execute
from tilewright.space.default import default_schedule
from tilewright.util.errors import MachineError

MACHINE = load_machine("gemmini")
#: Fields of the store controller that say how it pools.
POOL = ("pool_stride", "pool_size", "upad", "lpad", "pool_out_cols", "porows", "pocols", "orows", "ocols")


def word_of(name: str) -> RoCC:
    emit = MACHINE.instruction(name).emit
    assert isinstance(emit, RoCC)
    return emit


def test_words_use_custom_3_with_both_sources() -> None:
    # funct7 = 2 (mvin), rs2 = x11, rs1 = x10, funct3 = 011, rd = x0, opcode = 0x7b
    assert word_of("mvin").word(10, 11) == 0b0000010_01011_01010_011_00000_1111011
    assert {n: word_of(n).funct7 for n in ("config_ex", "config_ld", "config_st", "mvin", "mvout")} == {
        "config_ex": 0,
        "config_ld": 0,
        "config_st": 0,
        "mvin": 2,
        "mvout": 3,
    }


def test_moves_pack_address_columns_and_rows() -> None:
    tile = {"src.address": 0x8000_1000, "dst.address": 0x20, "dst.cols": 16, "dst.rows": 7}
    assert word_of("mvin").registers(tile) == (0x8000_1000, 7 << 48 | 16 << 32 | 0x20)
    assert word_of("mvin_acc").registers(tile)[1] == 7 << 48 | 16 << 32 | 1 << 31 | 0x20
    back = {"dst.address": 0x9000, "src.address": 3, "src.cols": 16, "src.rows": 16}
    assert word_of("mvout").registers(back) == (0x9000, 16 << 48 | 16 << 32 | 1 << 31 | 3)
    assert word_of("mvout_full").registers(back)[1] == 16 << 48 | 16 << 32 | 0b101 << 29 | 3


def test_matmul_preloads_weights_then_computes_without_bias() -> None:
    emit = MACHINE.instruction("matmul").emit
    assert isinstance(emit, Steps)
    preload, compute = emit.steps
    places = {"a": 1, "b": 2, "c": 3}
    q = {f"{o}.{x}": n for o, address in places.items() for x, n in (("address", address), ("cols", 16), ("rows", 16))} | {"accumulate": 1}
    full = 16 << 48 | 16 << 32
    assert (preload.funct7, preload.registers(q)) == (6, (full | 2, full | 0b11 << 30 | 3))
    assert (compute.funct7, compute.registers(q)) == (4, (full | 1, full | 0xFFFFFFFF))


def test_configuration_words_are_told_apart_by_the_low_bits() -> None:
    ex = dict.fromkeys(("activation", "a_transpose", "b_transpose", "shift"), 0)
    rs1, rs2 = word_of("config_ex").registers({**ex, "dataflow": 1, "a_stride": 1, "c_stride": 1, "acc_scale": ONE})
    assert (rs1, rs2) == (ONE << 32 | 1 << 16 | 1 << 2, 1 << 48)
    ld = {"shrunk": 0, "repeats": 1, "block_stride": 16, "scale": ONE, "stride": 512}
    assert word_of("config_ld").registers(ld) == (ONE << 32 | 16 << 16 | 1 << 8 | 1, 512)
    st = {**dict.fromkeys(POOL, 0), "activation": 1, "stride": 64, "acc_scale": ONE}
    assert word_of("config_st").registers(st) == (1 << 2 | 2, ONE << 32 | 64)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MachineError, match=r"needs 'dst.address'"):
        word_of("mvin").registers({"src.address": 0})
    with pytest.raises(MachineError, match=r"dst.cols = 65536 does not fit bits \[47:32\]"):
        word_of("mvin").registers({"src.address": 0, "dst.address": 0, "dst.cols": 1 << 16, "dst.rows": 1})


def test_overlapping_fields_are_refused() -> None:
    broken = replace(MACHINE.instruction("matmul"), name="broken", emit=RoCC(1, rs1=(Bits(0, 8, "a.rows"), Bits(7, 8, "a.cols"))))
    with pytest.raises(MachineError, match=r"bits \[14:7\] of a.cols lie outside"):
        MACHINE.derive(instructions=[*MACHINE.instructions, broken])


def test_array_and_memories_are_parameters() -> None:
    small = gemmini("gemmini.4", dim=4, scratchpad_bytes=32 << 10, accumulator_bytes=8 << 10)
    assert small.instances("column") == 16
    assert (small.memory("spad").bytes, small.memory("acc").bytes) == (32 << 10, 8 << 10)
    assert small.instruction("matmul").extents == {"i": 4, "j": 4, "k": 4}
    assert small.peak_ops() == 2 * 4 * 4 * small.clock_hz
    for name, least in (("scratchpad_bytes", 8192), ("accumulator_bytes", 16384)):
        with pytest.raises(MachineError, match=f"with {name} = 4096: a product on 64 x 64 units needs {least}") as e:
            gemmini("gemmini.bad", dim=64, **{name: 4096})
        assert e.value.hint == f"raise {name}, or lower dim"


@pytest.mark.parametrize("types", [Types(), FP32, BF16])
@pytest.mark.parametrize("dim", [1, 8, 16, 128])
def test_memories_of_one_product_are_enough(dim: int, types: Types) -> None:
    """Rows of moves are no longer than what the memories hold: so every machine can be declared that the generator builds."""
    row, sums = dim * types.inputs.nbytes, dim * types.sums.nbytes
    least = gemmini("least", dim=dim, scratchpad_bytes=2 * dim * row, accumulator_bytes=dim * sums, types=types)
    tiles = {t.name: t.instruction.extents["j"] for t in least.transfers}
    assert tiles["mvout"] == tiles["mvin_acc"] == dim and tiles["mvin"] <= 2 * dim
    built = buildable({"dim": dim, "scratchpad_bytes": 1, "accumulator_bytes": 1}, types)
    assert gemmini("built", **built, types=types).parameters["dim"] == dim


def test_the_smallest_machine_computes() -> None:
    machine = gemmini("least", scratchpad_bytes=512, accumulator_bytes=1024)
    kernel = build_operator("matmul", types=(ty.i8, ty.i8, ty.i32), i=33, j=20, k=40)
    program = generate(default_schedule(kernel, machine).kernel, machine)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (33, 40), np.int8), rng.integers(-128, 128, (40, 20), np.int8)
    arrays = dict(zip((x.name for x in kernel.args), (a, b, np.zeros((33, 20), np.int32)), strict=True))
    execute(program, machine, arrays)
    np.testing.assert_array_equal(arrays[kernel.args[2].name], a.astype(np.int32) @ b)


def test_bus_and_queues_are_parameters() -> None:
    control = Control(dma_bytes=32, dma_max_bytes=128, dma_requests=4, load_entries=3)
    wide = gemmini("gemmini.wide", control=control)
    assert wide.parameters["dma_bytes"] == 32 and wide.parameters["load_entries"] == 3
    assert wide.memory("dram").bandwidth == 32 and all(t.bandwidth == 32 and t.in_flight == 4 for t in wide.transfers)
    tiles = {t.name: t.instruction.extents["j"] for t in wide.transfers}
    assert (tiles["mvin"], tiles["mvin_acc"], tiles["mvout"]) == (128, 32, 128)
    c = Configuration.of(wide)
    assert (c.bus_bytes, c.max_bytes, c.requests, c.load_entries, c.store_entries) == (32, 128, 4, 3, 4)
    with pytest.raises(MachineError, match=r"load_entries = 0"):
        Control(load_entries=0)
    with pytest.raises(MachineError, match=r"bus of 24 bytes"):
        Control(dma_bytes=24)
    with pytest.raises(MachineError, match=r"requests of at most 40"):
        Control(dma_max_bytes=40)


def test_mvout_saturates() -> None:
    i = MACHINE.instruction("mvout")
    src = np.linspace(-300, 300, 16 * 64).astype(np.int32).reshape(16, 64)
    dst = np.zeros((16, 64), np.int8)
    interpret(i.kernel, {"dst": dst, "src": src})
    np.testing.assert_array_equal(dst, np.clip(src, -128, 127))


@pytest.mark.parametrize(("types", "lines"), [(INT16, (32, 64)), (FP32, (64, 64)), (BF16, (32, 64)), (FP16, (32, 64))], ids=str)
def test_types_are_parameters(types: Types, lines: tuple[int, int]) -> None:
    """Lines are as long as their elements; a move takes as many columns as a request has bytes."""
    m = gemmini("gemmini.typed", types=types)
    assert (m.memory("spad").line, m.memory("acc").line) == lines
    operands = {o.name: o.dtype for o in m.instruction("matmul").operands}
    assert operands == {"c": types.sums, "a": types.inputs, "b": types.inputs}
    assert m.transfer("mvin").instruction.extents["j"] == max(16, 64 // types.inputs.nbytes)
    names = {t.name for t in m.transfers}
    assert ("mvout_full" in names, "mvin_acc_shrunk" in names, "mvin_acc_shrunk_scaled" in names) == (
        types.mixed,
        types.mixed,
        types == INT16,
    )
    c = Configuration.of(m)
    assert (c.inputs, c.sums, c.spad_rows, c.acc_rows) == (types.inputs, types.sums, (256 << 10) // lines[0], (64 << 10) // lines[1])


def test_floats_leave_rounded_and_are_not_limited() -> None:
    i = gemmini("gemmini.bf16", types=BF16).instruction("mvout_scaled_relu")
    src = np.linspace(-3e5, 3e5, 16 * 32, dtype=np.float32).reshape(16, 32)
    dst = np.zeros((16, 32), np.uint16)
    interpret(i.kernel, {"dst": dst, "src": src, "scale": np.array(0.5, np.float32)})
    np.testing.assert_array_equal(dst, np.maximum(src * np.float32(0.5), 0).astype(ml_dtypes.bfloat16).view(np.uint16))


def test_types_without_arithmetic_are_refused() -> None:
    with pytest.raises(MachineError, match="multiplies f16 into i32") as caught:
        Types(ty.f16, ty.i32)
    assert "bf16 into f32" in str(caught.value.hint)
    with pytest.raises(MachineError, match="sums of bf16 that are f16 on their way down a column"):
        Types(ty.bf16, ty.f32, ty.f16)
    with pytest.raises(MachineError, match="that are i32 on their way"):
        Types(column=ty.i32)
    with pytest.raises(MachineError, match="normalisation unit of a Gemmini for f32"):
        Configuration.of(gemmini("gemmini.norm", types=FP32, control=Control(norm_stats=2)))
    assert Types(ty.bf16, ty.f32, ty.f32).column_bits(16) == 32


@pytest.mark.parametrize(
    ("parameters", "base", "declared", "bank_rows"),
    [
        ("inputs=i8", "GemminiConfigs.defaultConfig", "typedef int8_t elem_t;", 128),
        ("inputs=i16", "inputType = SInt(16.W)", "typedef int16_t elem_t;", 64),
        ("inputs=f32", "GemminiFPConfigs.FP32DefaultConfig", "typedef float elem_t;", 32),
        ("inputs=bf16", "GemminiFPConfigs.BF16DefaultConfig", "#define ELEM_T_IS_LOWPREC_FLOAT", 64),
        ("inputs=f16,column=f32", "spatialArrayOutputType = Float(8, 24)", "elem_t_max = 65504.0", 64),
    ],
)
def test_files_of_families_know_their_types(parameters: str, base: str, declared: str, bank_rows: int, tmp_path: Path) -> None:
    family = load_family(f"gemmini:{parameters}")
    least = {"dim": 12, "scratchpad_bytes": 5000, "accumulator_bytes": 3000}
    written = {name: write("net", least) for name, write in family.files.items()}
    assert base in written["GemminiConfig.scala"]
    assert declared in written["gemmini_params.h"] and f"#define BANK_ROWS {bank_rows}\n" in written["gemmini_params.h"]
    (tmp_path / "machine.py").write_text(written["machine.py"])
    found, asked = load_machine(tmp_path / "machine.py"), load_machine(f"gemmini:{parameters}")
    assert found.parameters["column_bits"] == asked.parameters["column_bits"]
    assert Configuration.of(found).spad_rows == 4 * bank_rows
    assert str(found.instruction("matmul")) == str(asked.instruction("matmul"))


def test_words_of_families_have_the_bytes_of_their_types() -> None:
    """A mapping of as many words needs as many times the bytes."""
    use = Use(held={"L2": 1000, "L1": 50}, units={"L2": 16, "L1": 16})
    for inputs, size in (("i8", 1), ("bf16", 2), ("f32", 4)):
        family = load_family(f"gemmini:inputs={inputs}")
        spad, acc = (next(p for p in family.parameters if p.name == n).needs[0] for n in ("scratchpad_bytes", "accumulator_bytes"))
        assert (spad(use, {"dim": 16}), acc(use, {"dim": 16})) == (1000 * size, 50 * 16 * 4)
        at = {"dim": 16, "scratchpad_bytes": 4096, "accumulator_bytes": 2048}
        levels = {s.name: s for s in family.hierarchy.levels}
        rates = [family.hierarchy.rate(r, at) for r in (levels["L2"].words, levels["L1"].words, levels["L3"].words_per_cycle)]
        assert rates == [4096 / size, 2048 / 4 / 16, 8 / size]
    with pytest.raises(MachineError, match="gemmini has no parameter 'depth'"):
        load_family("gemmini:depth=3")


@pytest.mark.parametrize(
    "sizes", [{"dim": 0}, {"dim": "x"}, {"dim": 2.5}, {"dim": True}, {"scratchpad_bytes": 0}, {"accumulator_bytes": "64k"}]
)
def test_a_size_that_is_no_whole_number_is_named(sizes: dict[str, Any], tmp_path: Path) -> None:
    ((name, value),) = sizes.items()
    with pytest.raises(MachineError, match=f"a Gemmini with {name} = {value!r}") as e:
        gemmini("gemmini.bad", **sizes)
    assert e.value.hint == f"{name} is a whole number, 1 or more"
    file = tmp_path / "mine.py"
    file.write_text(f"from tilewright.hw.library.gemmini import gemmini\n\nmachine = gemmini('mine', {name}={value!r})\n")
    with pytest.raises(MachineError, match=f"a Gemmini with {name} = {value!r}"):
        load_machine(file)


def test_a_size_on_the_command_line_is_a_whole_number() -> None:
    for load in (load_machine, load_family):
        with pytest.raises(MachineError, match="a Gemmini with dim = 0"):
            load("gemmini:dim=0")
        with pytest.raises(MachineError, match="parameter dim of gemmini is 'x', not a whole number"):
            load("gemmini:dim=x")
    with pytest.raises(MachineError, match="a Gemmini with load_queue = 'x'"):
        Control(load_queue="x")  # type: ignore[arg-type]
