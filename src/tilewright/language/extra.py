"""``from tilewright.language.extra import libdevice``: functions of elements, under the names that other hardware's library has."""

from __future__ import annotations

from types import SimpleNamespace

from tilewright.lang.block.marks import Mark
from tilewright.lang.block.vocabulary import MATH

libdevice = SimpleNamespace(**{name: Mark(name) for name in (*MATH, "maximum", "minimum")})
