"""Names of kernels as symbols of an object file."""

from __future__ import annotations

import re

#: Functions that generated code may call: LLVM lowers its math intrinsics and memory loops to them.
_LIBRARY = re.compile(
    r"(a?(cos|sin|tan)h?|atan2|sincos|exp(10|2|m1)?|log(10|2|1p|b)?|ll?r(ound|int)|round(even)?|rint|nearbyint|trunc|ceil|floor"
    r"|pow|sqrt|cbrt|hypot|fabs|f(ma|max|min|mod|dim)|remainder|modf|frexp|ldexp|copysign|nextafter|erfc?|[lt]gamma)[fl]?"
    r"|mem(cpy|move|set|cmp)|bcmp"
)


def kernel_symbol(name: str) -> str:
    """The symbol of a kernel called ``name``: a C identifier that is no C library function (``pow`` becomes ``tw_pow``)."""
    symbol = re.sub(r"\W", "_", name)
    return f"tw_{symbol}" if _LIBRARY.fullmatch(symbol) else symbol
