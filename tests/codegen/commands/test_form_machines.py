"""A machine that is no Gemmini with a loop form of its own: other types, words, fields, no state, and no chain of runs."""

# The annotations of instructions are declarations, not Python types.
# mypy: disable-error-code="valid-type,no-untyped-def"
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.codegen.commands.scheduled_gemm import FULL, Gemm

from tilewright.codegen.commands import Program, check, generate, parse_program, stream
from tilewright.hw import Bits, LoopForm, Machine, Memory, Part, RoCC, Unit, axes, instruction, upto
from tilewright.ir.types import i16, i32
from tilewright.util.errors import CodegenError, MachineError

DIM, MOST = 4, 7 * 4
DRAM, TILES, SUMS = "dram", "tiles", "sums"
RECTIFIED = "max(acc[i_2, j_2], 0)"


@instruction(emit=RoCC(1))
def mac(c: i32[DIM, DIM] @ SUMS, a: i16[DIM, DIM] @ TILES, b: i16[DIM, DIM] @ TILES):
    i, j, k = axes(upto(DIM), upto(DIM), upto(DIM))
    c[i, j] += a[i, k] * b[k, j]


@instruction()
def zeros(total: i32[MOST, MOST] @ SUMS):
    i, j = axes(upto(MOST), upto(MOST))
    total[i, j] = 0


@instruction()
def product(total: i32[MOST, MOST] @ SUMS, left: i16[MOST, MOST] @ DRAM, right: i16[MOST, MOST] @ DRAM):
    i, j, k = axes(upto(MOST), upto(MOST), upto(MOST))
    total[i, j] += left[i, k] * right[k, j]


@instruction()
def plain(out: i32[MOST, MOST] @ DRAM, total: i32[MOST, MOST] @ SUMS):
    i, j = axes(upto(MOST), upto(MOST))
    out[i, j] = total[i, j]


@instruction()
def rectified(out: i32[MOST, MOST] @ DRAM, total: i32[MOST, MOST] @ SUMS):
    i, j = axes(upto(MOST), upto(MOST))
    out[i, j] = max(total[i, j], 0)


def sizes(*names: str) -> tuple[Bits, ...]:
    """Three bits of blocks and two of padding for each axis."""
    return tuple(b for n, a in enumerate(names) for b in (Bits(8 * n, 3, f"{a}_blocks"), Bits(8 * n + 3, 2, f"{a}_pad")))


def blocks(n: int) -> int:
    return -(-n // DIM)


FORM = LoopForm(
    "gemm_loop",
    "total",
    starts=(Part(zeros),),
    updates=(Part(product),),
    finishes=(Part(plain), Part(rectified, (("rectify", 1),))),
    words=(
        RoCC(32, sizes("i", "j", "k"), (Bits(0, 16, "left_pitch"), Bits(16, 16, "right_pitch"), Bits(32, 16, "out_pitch")), name="shape"),
        RoCC(33, (Bits(0, 64, "left.address"),), (Bits(0, 64, "right.address"),), name="places"),
        RoCC(34, (Bits(0, 64, "out.address"),), (Bits(63, 1, "rectify"),), name="go"),
    ),
    block=(("i", DIM), ("j", DIM), ("k", DIM)),
    lines=(("tiles", lambda n: (blocks(n["i"]) + blocks(n["j"])) * blocks(n["k"]) * DIM), ("sums", lambda n: blocks(n["i"]) * n["j"])),
    idle=(("rectify", 0),),
    chains=False,
)


def machine(**changes) -> Machine:
    fields = {"forms": [FORM]} | changes
    return Machine(
        "toy",
        memories=[
            Memory("dram", "main", None, 2),
            Memory("tiles", "scratchpad", 4096, 1, "dram", line=2 * DIM),
            Memory("sums", "scratchpad", 2048, 1, "dram", line=4 * DIM, buffers=2),
        ],
        units=[Unit("array", 1)],
        instructions=[mac],
        parameters={"dim": DIM},
        **fields,
    )


def program(g: Gemm) -> Program:
    toy = machine()
    made = generate(g.scheduled(toy, "tiles", "sums", "mac"), toy, forms=("gemm_loop",))
    assert parse_program(str(made)) == made
    check(made, toy)
    return made


def run(made: Program, arrays: dict[str, NDArray[np.generic]]) -> int:
    """What the toy's hardware does with the words, on arrays whose addresses are multiples of 1 << 20; the number of words."""
    names = list(arrays)
    count = 0
    for word in stream(made, machine(), {n: k << 20 for k, n in enumerate(names, 1)}):
        if word is None:
            continue
        count += 1
        funct, rs1, rs2 = word
        if funct == 32:
            extents = [(rs1 >> 8 * n & 7) * DIM - (rs1 >> 8 * n + 3 & 3) for n in range(3)]
            pitches = [rs2 >> 16 * n & 0xFFFF for n in range(3)]
        elif funct == 33:
            places = [rs1, rs2]
        else:
            (m, n, k), rectify = extents, rs2 >> 63

            def matrix(place: int, rows: int, cols: int, pitch: int) -> NDArray[np.generic]:
                flat = arrays[names[(place >> 20) - 1]].reshape(-1)
                first = (place & (1 << 20) - 1) // flat.itemsize
                return np.lib.stride_tricks.as_strided(flat[first:], (rows, cols), (pitch * flat.itemsize, flat.itemsize))

            total = matrix(places[0], m, k, pitches[0]).astype(np.int32) @ matrix(places[1], k, n, pitches[1])
            matrix(rs1, m, n, pitches[2])[...] = np.maximum(total, 0) if rectify else total
    return count


@pytest.mark.parametrize("epilogue", [FULL, RECTIFIED])
@pytest.mark.parametrize(("sizes", "tile"), [((8, 8, 8), (8, 8, 8)), ((30, 21, 19), (16, 12, 8)), ((1, 5, 27), (4, 4, 4))])
def test_tiles_are_runs_of_its_form(epilogue: str, sizes: tuple[int, int, int], tile: tuple[int, int, int]) -> None:
    g = Gemm(*sizes, tile, epilogue=epilogue, inputs="i16", results="i32")
    made = program(g)
    rng = np.random.default_rng(len(epilogue))
    m, n, k = sizes
    a, b = (rng.integers(-1000, 1000, s).astype(np.int16) for s in ((m, k), (k, n)))
    c = np.full((m, n), 77, np.int32)
    words = run(made, {"a": a, "b": b, "c": c})
    want = a.astype(np.int32) @ b
    np.testing.assert_array_equal(c, np.maximum(want, 0) if epilogue == RECTIFIED else want)
    assert words == 3 * -(-m // tile[0]) * -(-n // tile[1])  # all of k in one run: it does not chain


def test_sums_over_its_longest_run_are_refused() -> None:
    with pytest.raises(CodegenError, match=r"axis k takes upto\(28\) iterations, loop k runs 32"):
        program(Gemm(8, 8, 32, (8, 8, 8), epilogue=FULL, inputs="i16"))


def test_declarations_are_checked() -> None:
    from dataclasses import replace

    with pytest.raises(MachineError, match=r"loop form gemm_loop: nothing says what rectify is"):
        machine(forms=[replace(FORM, idle=())])
    with pytest.raises(MachineError, match=r"nothing says what k_blocks, k_pad is"):
        machine(forms=[replace(FORM, block=(("i", 4), ("j", 4)))])
    with pytest.raises(MachineError, match=r"has no operand sums"):
        machine(forms=[replace(FORM, sums="sums")])
