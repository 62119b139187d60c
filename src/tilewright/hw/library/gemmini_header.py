"""``gemmini_params.h``: what the software library wants to know of a Gemmini, under the names that it uses."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.hw.library.gemmini_types import Types
from tilewright.ir.types import bf16, f16, f32

#: Bytes of the largest request.
MAX_BYTES = 64
#: Bits of the exponent and of the significand, the largest number.
FLOATS = {f32: (8, 24, "3.4028235E38"), bf16: (8, 8, "3.3895314E38"), f16: (5, 11, "65504.0")}
#: Scales of integers as the hardware applies them: in f32, to the nearest, halves to even, then saturated.
_INTEGER_SCALES = """\
/* To the nearest whole number, halves to even; a float of 2^51 or more has no fraction. */
static inline double gemmini_nearest(double x) {
  const double far = x < 0 ? -6755399441055744.0 : 6755399441055744.0;
  return x < -2251799813685248.0 || x > 2251799813685248.0 ? x : (x + far) - far;
}

static inline elem_t gemmini_saturated(double x) {
  return x < elem_t_min ? elem_t_min : x > elem_t_max ? elem_t_max : (elem_t)x;
}

static inline int64_t gemmini_right_shift(int64_t x, int shift) {
  return shift > 0 ? (x + ((int64_t)1 << (shift - 1)) - 1 + ((x >> shift) & 1)) >> shift : x * ((int64_t)1 << -shift);
}

#define ROUND_NEAR_EVEN(x) gemmini_nearest(x)
#define ROUNDING_RIGHT_SHIFT(x, shift) gemmini_right_shift(x, shift)
#define ACC_SCALE(x, scale) ((acc_t)gemmini_saturated(gemmini_nearest((float)(x) * (float)(scale))))
#define MVIN_SCALE(x, scale) gemmini_saturated(gemmini_nearest((float)(x) * (float)(scale)))
#define MVIN_SCALE_ACC(x, scale) (x)"""
_FLOAT_SCALES = """\
#define ROUND_NEAR_EVEN(x) __builtin_rint(x)
#define ROUNDING_RIGHT_SHIFT(x, shift) ((x) / ((int64_t)1 << (shift)))
#define ACC_SCALE(x, scale) ((x) * (scale))
#define MVIN_SCALE(x, scale) ((x) * (scale))
#define MVIN_SCALE_ACC(x, scale) ((x) * (scale))"""


def parameters(name: str, sizes: Mapping[str, int], banks: int, types: Types) -> str:
    """The header of a Gemmini of ``sizes`` that can be built, with so many banks of its scratchpad."""
    dim, spad, acc = sizes["dim"], sizes["scratchpad_bytes"], sizes["accumulator_bytes"]
    row, sums = dim * types.inputs.nbytes, dim * types.sums.nbytes
    return f"""/* {name} */
#ifndef GEMMINI_PARAMS_H
#define GEMMINI_PARAMS_H

#include <limits.h>
#include <stdint.h>

#define XCUSTOM_ACC 3
#define DIM {dim}
#define ADDR_LEN 32
#define BANK_NUM {banks}
#define BANK_ROWS {spad // (banks * row)}
#define ACC_ROWS {acc // sums}
#define MAX_BYTES {MAX_BYTES}
#define MAX_BLOCK_LEN ({max(MAX_BYTES // row, 1)})
#define MAX_BLOCK_LEN_ACC ({max(MAX_BYTES // sums, 1)})

{_elements(types)}

{_scales(types)}

#define row_align(blocks) __attribute__((aligned((blocks) * DIM * sizeof(elem_t))))
#define row_align_acc(blocks) __attribute__((aligned((blocks) * DIM * sizeof(acc_t))))

#define ACC_READ_SMALL_WIDTH
#define ACC_READ_FULL_WIDTH
#define HAS_FIRST_LAYER_OPTIMIZATIONS

#endif
"""


def _elements(types: Types) -> str:
    """Types of the software library: floats of 16 bits are their bits, with the largest number as a float."""
    if not types.real:
        least, most = types.inputs.range
        limits = f"static const elem_t elem_t_max = {most};\nstatic const elem_t elem_t_min = {least};"
        return f"typedef int{types.inputs.bits}_t elem_t;\n{limits}\ntypedef int{types.sums.bits}_t acc_t;\ntypedef int64_t full_t;"
    exponent, significand, largest = FLOATS[types.inputs]
    short = types.inputs.bits == 16
    kind, limit = ("uint16_t", "float") if short else ("float", "elem_t")
    lines = [f"typedef {kind} elem_t;", *(["#define ELEM_T_IS_LOWPREC_FLOAT"] if short else [])]
    lines += [f"static const {limit} elem_t_max = {largest};", f"static const {limit} elem_t_min = -{largest};"]
    lines += ["typedef float acc_t;", "typedef double full_t;", "", "#define ELEM_T_IS_FLOAT"]
    lines += [f"#define ELEM_T_EXP_BITS {exponent}", f"#define ELEM_T_SIG_BITS {significand}"]
    lines += ["#define ACC_T_EXP_BITS 8", "#define ACC_T_SIG_BITS 24"]
    return "\n".join([*lines, f"typedef uint{types.inputs.bits}_t elem_t_bits;", "typedef uint32_t acc_t_bits;"])


def _scales(types: Types) -> str:
    """Types of scales and what they do. Loads of sums have scales where sums are floats."""
    half = types.inputs == f16  # whose loads are scaled by such numbers, which are their bits here
    kind, bits, one = ("uint16_t", 16, f"{types.unscaled:#x}") if half else ("float", 32, "1.0")
    of_sums = "float" if types.real else f"int{types.sums.bits}_t"
    lines = ["#define HAS_MVIN_SCALE", f"typedef {kind} scale_t;", f"typedef uint{bits}_t scale_t_bits;"]
    lines += ["#define HAS_MVIN_ACC_SCALE"] if types.real else []
    lines += [f"typedef {of_sums} scale_acc_t;", f"typedef uint{types.sums.bits}_t scale_acc_t_bits;"]
    lines += ["typedef float acc_scale_t;", "typedef uint32_t acc_scale_t_bits;", ""]
    lines += ["#define ACC_SCALE_T_IS_FLOAT", "#define ACC_SCALE_EXP_BITS 8", "#define ACC_SCALE_SIG_BITS 24"]
    lines += [f"#define MVIN_SCALE_IDENTITY {one}", "#define ACC_SCALE_IDENTITY 1.0", ""]
    return "\n".join(lines) + "\n" + (_FLOAT_SCALES if types.real else _INTEGER_SCALES)
