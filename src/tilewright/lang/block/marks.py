"""What the words of the block language are in Python: marks that only the reader of a program gives a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.util.errors import LanguageError


@dataclass(frozen=True, slots=True)
class Mark:
    """The word ``tl.name``."""

    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise LanguageError(f"tl.{self.name} is a word of block programs", hint="use it in a function decorated with @tilewright.jit")


@dataclass(frozen=True, slots=True)
class Unsupported:
    """An element type that programs may compare others with, but not use."""

    name: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """What a word leaves that elsewhere gives a value: programs run in any order, so what was there before means nothing."""

    name: str


class Constexpr:
    """The annotation of parameters that are known when the program is compiled; ``tl.constexpr(x)`` is ``x``."""

    def __new__(cls, value: Any) -> Any:
        return value
