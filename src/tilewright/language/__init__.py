"""``import tilewright.language as tl``: the words of block programs, in the spelling of Triton.

Programs are read, not run: the words here stand for what the reader of a function decorated with
:func:`tilewright.jit` builds. Calling one outside such a function is an error.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tilewright.lang.block.ir import Value
from tilewright.lang.block.marks import Constexpr as constexpr
from tilewright.lang.block.marks import Mark, Unsupported
from tilewright.lang.block.memory import Descriptor
from tilewright.lang.block.vocabulary import DTYPES, MATH, REFUSED, UNSUPPORTED_DTYPES, WORDS
from tilewright.language import extra

_NAMES: dict[str, Any] = {
    **DTYPES,
    **{name: Mark(name) for name in (*WORDS, *REFUSED)},
    "constexpr": constexpr,
    "tensor": Value,
    "tensor_descriptor": Descriptor,
    **{name: Unsupported(name) for name in UNSUPPORTED_DTYPES},
    "extra": extra,
    "libdevice": extra.libdevice,
    "math": SimpleNamespace(**{name: Mark(name) for name in (*MATH, "maximum", "minimum", "div_rn", "fdiv", "sqrt_rn", "umulhi")}),
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return _NAMES[name]
    raise AttributeError(f"tilewright.language has no word {name!r}")


def __dir__() -> list[str]:
    return __all__
