"""Names of kernels as symbols of an object file."""

from __future__ import annotations

import re

#: Functions that generated code may call: LLVM lowers its math intrinsics and memory loops to them.
_MATH = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp10 exp2 expm1 fabs fdim floor fma fmax "
    "fmin fmod frexp hypot ldexp lgamma log log10 log1p log2 logb lround llround lrint llrint modf nearbyint nextafter pow "
    "remainder rint round roundeven sin sincos sinh sqrt tan tanh tgamma trunc"
).split()
_LIBRARY = frozenset(f + suffix for f in _MATH for suffix in ("", "f", "l")) | {"memcpy", "memmove", "memset", "memcmp", "bcmp"}


def kernel_symbol(name: str) -> str:
    """The symbol of a kernel called ``name``: a C identifier that is no C library function (``pow`` becomes ``tw_pow``)."""
    symbol = re.sub(r"\W", "_", name)
    return f"tw_{symbol}" if symbol in _LIBRARY else symbol
