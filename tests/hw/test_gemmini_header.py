"""The exported header, compiled: it has what the vendor's library uses, and its scales are the hardware's."""

from __future__ import annotations

import ctypes
from fractions import Fraction

import numpy as np
import pytest
from tests.codegen.compiled_c import load

from tilewright.hw.library.gemmini_types import Types
from tilewright.hw.load import load_family
from tilewright.ir import types as ty

#: What the vendor's library includes the header for, as functions.
LIBRARY = """
union { scale_t value; scale_t_bits bits; } loads;
union { scale_acc_t value; scale_acc_t_bits bits; } loads_of_sums;
union { acc_scale_t value; acc_scale_t_bits bits; } stores = { ACC_SCALE_IDENTITY };
elem_t tile[DIM][DIM] row_align(MAX_BLOCK_LEN);
acc_t sums[DIM][DIM] row_align_acc(MAX_BLOCK_LEN_ACC);
full_t wide;
uint32_t one(void) { loads.value = MVIN_SCALE_IDENTITY; return loads.bits; }
acc_t stored(acc_t x, float scale) { return ACC_SCALE(x, scale); }
elem_t loaded(elem_t x, scale_t scale) { return MVIN_SCALE(x, scale); }
acc_t started(acc_t x, scale_acc_t scale) { (void)scale; return MVIN_SCALE_ACC(x, scale); }
int64_t shifted(int64_t x, int shift) { return ROUNDING_RIGHT_SHIFT(x, shift); }
int64_t nearest(double x) { return ROUND_NEAR_EVEN(x); }
"""


def compiled(inputs: str) -> ctypes.CDLL:
    header = load_family(f"gemmini:inputs={inputs}").files["gemmini_params.h"]
    text = header("net", {"dim": 8, "scratchpad_bytes": 8192, "accumulator_bytes": 8192})
    return load(text + LIBRARY, ("-Wno-unused-function", "-Wno-unused-const-variable"))


@pytest.mark.parametrize("inputs", ["f32", "bf16", "f16"])
def test_the_header_has_what_the_vendors_library_uses(inputs: str) -> None:
    library = compiled(inputs)
    library.one.restype = ctypes.c_uint32
    assert library.one() == Types(ty.NAMED[inputs]).unscaled


@pytest.mark.parametrize("inputs", ["i8", "i16"])
def test_the_headers_scales_are_those_of_the_hardware(inputs: str) -> None:
    library = compiled(inputs)
    library.one.restype, library.stored.argtypes = ctypes.c_uint32, [ctypes.c_int32, ctypes.c_float]
    library.shifted.argtypes, library.shifted.restype = [ctypes.c_int64, ctypes.c_int], ctypes.c_int64
    assert library.one() == Types(ty.NAMED[inputs]).unscaled
    rng = np.random.default_rng(0)
    least, most = ty.NAMED[inputs].range
    sums = rng.integers(-(2**31), 2**31, 300) >> rng.integers(0, 31, 300)
    for x, scale in zip(sums.tolist(), rng.choice([1, 0.5, 0.25, 0.01, 3], 300).tolist(), strict=True):
        want = np.clip(np.rint(np.float32(x) * np.float32(scale)), least, most)
        assert library.stored(x, scale) == int(want)
    for x in range(-40, 41):
        assert [library.shifted(x, n) for n in (0, 1, 3, -2)] == [x, round(Fraction(x, 2)), round(Fraction(x, 8)), x * 4]
