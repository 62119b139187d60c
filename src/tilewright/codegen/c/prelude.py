"""Small C functions that generated code calls where one C operator is not the operation meant.

A helper is written into the file only if it is used. Helpers of integer types are made from templates: ``tw_floordiv_i32``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.c.scalars import CType
from tilewright.util.errors import CodegenError


@dataclass(frozen=True, slots=True)
class Helper:
    """C text of a function and the headers it needs."""

    text: str
    headers: tuple[str, ...] = ()


#: By name before the type's tag; {T} is the type, {U} the unsigned one of its width, {tag} its tag, {last} its width - 1.
TEMPLATES = {
    "min": "static inline {T} tw_min_{tag}({T} a, {T} b) {{ return a < b{nan} ? a : b; }}",
    "max": "static inline {T} tw_max_{tag}({T} a, {T} b) {{ return a > b{nan} ? a : b; }}",
    "floordiv": """static inline {T} tw_floordiv_{tag}({T} a, {T} b) {{
    {T} q = a / b;
    return q - (a % b != 0 && (a % b < 0) != (b < 0));
}}""",
    "mod": """static inline {T} tw_mod_{tag}({T} a, {T} b) {{
    {T} r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}}""",
    "shl": "static inline {T} tw_shl_{tag}({T} a, uint64_t n) {{ return n > {last} ? 0 : ({T})(({U})a << n); }}",
    "shr": "static inline {T} tw_shr_{tag}({T} a, uint64_t n) {{ return a >> (n > {last} ? {last} : n){gone}; }}",
    "abs": "static inline {T} tw_abs_{tag}({T} a) {{ return a < 0 ? ({T})(0 - ({U})a) : a; }}",
}

#: Floor division and remainder of floats, with the signs Python gives them.
FLOAT_TEMPLATES = {
    "mod": """static inline {T} tw_mod_{tag}({T} a, {T} b) {{
    {T} r = fmod{s}(a, b);
    if (r == 0) return copysign{s}(r, b);
    return (r < 0) != (b < 0) ? r + b : r;
}}""",
    "floordiv": """static inline {T} tw_floordiv_{tag}({T} a, {T} b) {{
    if (b == 0) return a / b;
    {T} r = fmod{s}(a, b), q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;
    if (q == 0) return copysign{s}(0, a / b);
    {T} whole = floor{s}(q);
    return q - whole > 0.5{s} ? whole + 1 : whole;
}}""",
}

FIXED: dict[str, Helper] = {
    "tw_round_f16": Helper(
        """// The f16 value nearest to x, half to even.
static inline float tw_round_f16(double x) {
    double size = fabs(x);
    if (!(size < 65520.0)) return size != size ? (float)x : copysignf(INFINITY, (float)x);
    int exponent = -14;
    if (size >= 0x1p-14) exponent = ilogb(size);
    double step = ldexp(1.0, exponent - 10);
    return (float)(rint(x / step) * step);
}""",
        headers=("math.h",),
    ),
    "tw_f16_bits": Helper(
        """static inline uint16_t tw_f16_bits(float x) {  // x is an f16 value
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint32_t sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu));
    if (size == 0x7f800000u) return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u) return (uint16_t)(sign | (uint32_t)(fabsf(x) * 0x1p24f));
    return (uint16_t)(sign | (size - 0x38000000u) >> 13);
}""",
        headers=("math.h", "string.h"),
    ),
    "tw_f16_value": Helper(
        """static inline float tw_f16_value(uint16_t bits) {
    uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ffu, u;
    float x = (float)fraction * 0x1p-24f;
    if (exponent == 0) memcpy(&u, &x, sizeof u);
    else u = (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    u |= sign;
    memcpy(&x, &u, sizeof x);
    return x;
}""",
        headers=("string.h",),
    ),
    "tw_round_bf16": Helper(
        """// The bf16 value nearest to x, half to even: first to odd in f32, so that rounding twice equals rounding once.
static inline float tw_round_bf16(double x) {
    float f = (float)x;
    if (!(fabsf(f) < INFINITY)) return f;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if (f != x) u = (u - (fabs((double)f) > fabs(x))) | 1;
    u = (u + 0x7fffu + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, sizeof f);
    return f;
}""",
        headers=("math.h", "string.h"),
    ),
    "tw_bf16_bits": Helper(
        """static inline uint16_t tw_bf16_bits(float x) {  // x is a bf16 value
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)(u >> 16);
}""",
        headers=("string.h",),
    ),
    "tw_bf16_value": Helper(
        """static inline float tw_bf16_value(uint16_t bits) {
    uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}""",
        headers=("string.h",),
    ),
    "tw_odd": Helper(
        """// A wide integer as f64 rounded to odd: rounding it again to fewer bits equals rounding once.
static inline double tw_odd(__int128 x) {
    unsigned __int128 size = x < 0 ? 0 - (unsigned __int128)x : (unsigned __int128)x;
    int extra = 0;
    while (size >> extra >> 53) ++extra;
    uint64_t kept = (uint64_t)(size >> extra) | ((size & (((unsigned __int128)1 << extra) - 1)) != 0);
    return copysign(ldexp((double)kept, extra), x < 0 ? -1.0 : 1.0);
}""",
        headers=("math.h",),
    ),
    "tw_i64_of": Helper(
        """// Towards zero, modulo 2^64.
static inline int64_t tw_i64_of(double x) {
    if (x > -0x1p63 && x < 0x1p63) return (int64_t)x;
    if (!(fabs(x) < INFINITY)) return 0;
    double low = fmod(x, 0x1p64);
    return low < 0 ? (int64_t)(0 - (uint64_t)-low) : (int64_t)(uint64_t)low;
}""",
        headers=("math.h",),
    ),
    "tw_i128_of": Helper(
        """// Towards zero, modulo 2^128.
static inline __int128 tw_i128_of(double x) {
    if (!(fabs(x) < INFINITY)) return 0;
    double low = fmod(trunc(x), 0x1p128);
    return low < 0 ? (__int128)(0 - (unsigned __int128)-low) : (__int128)(unsigned __int128)low;
}""",
        headers=("math.h",),
    ),
    "tw_compare": Helper(
        """// -1, 0, 1 as a is less than, equal to, greater than b, exactly; 2 if b is no number.
static inline int tw_compare(__int128 a, double b) {
    if (b != b) return 2;
    if (b >= 0x1p127) return -1;
    if (b < -0x1p127) return 1;
    __int128 whole = (__int128)floor(b);
    return a < whole ? -1 : a > whole ? 1 : b > floor(b) ? -1 : 0;
}""",
        headers=("math.h",),
    ),
    "tw_allocate": Helper(
        """static inline void *tw_allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) abort();
    return memory;
}""",
        headers=("stdlib.h",),
    ),
}


def templated(name: str, ctype: CType) -> tuple[str, Helper]:
    """The helper ``name`` for one type: its C name and text."""
    tag = ctype.tag
    full = f"tw_{name}_{tag}"
    if ctype.kind == "float":
        text = {**TEMPLATES, **FLOAT_TEMPLATES}[name]
        return full, Helper(text.format(T=ctype, tag=tag, s="f" if ctype.bits == 32 else "", nan=" || a != a"), headers=("math.h",))
    text = TEMPLATES[name]
    if ctype.kind == "uint" and name in ("floordiv", "mod"):
        raise CodegenError(f"{full}: unsigned division is C's own")
    gone = f" >> (n > {ctype.bits - 1} ? 1 : 0)" if ctype.kind == "uint" else ""
    unsigned = CType("uint", ctype.bits)
    return full, Helper(text.format(T=ctype, U=unsigned, tag=tag, last=ctype.bits - 1, nan="", gone=gone))
