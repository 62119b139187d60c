"""Names during parsing: nested scopes of declarations, over the constants the kernel closes over."""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tilewright.util.errors import LanguageError

#: Values the language itself names.
CONSTANTS: dict[str, Any] = {"inf": math.inf, "nan": math.nan}


class Scope:
    """What each name means here: a loop variable or size, a buffer, or a compile-time value.

    Loops and buffers get names that are unique in the kernel: the second ``i`` becomes ``i_1``.
    """

    def __init__(self, outside: Mapping[str, Any]) -> None:
        self.outside = outside
        self.levels: list[dict[str, Any]] = [{}]
        self.used: set[str] = set()

    @contextmanager
    def level(self) -> Iterator[None]:
        """Declarations made inside end with the block."""
        self.levels.append({})
        try:
            yield
        finally:
            self.levels.pop()

    def lookup(self, name: str) -> Any:
        """The meaning of ``name``; KeyError if there is none."""
        for level in reversed(self.levels):
            if name in level:
                return level[name]
        return CONSTANTS[name] if name in CONSTANTS else self.outside[name]

    def declared(self, name: str) -> bool:
        """Is ``name`` a declaration of this kernel that is visible here?"""
        return any(name in level for level in self.levels)

    def fresh(self, name: str) -> str:
        """A name unique in the kernel, made from the one in the source."""
        check_name(name)
        unique, n = name, 0
        while unique in self.used:
            n += 1
            unique = f"{name}_{n}"
        self.used.add(unique)
        return unique

    def bind(self, name: str, meaning: Any) -> None:
        """Declare ``name`` in the innermost scope."""
        self.levels[-1][name] = meaning

    def visible(self) -> str:
        """The declared names, for hints."""
        return ", ".join(n for level in self.levels for n in level) or "nothing"


def check_name(name: str) -> None:
    """LanguageError unless ``name`` can name a loop, buffer, size or kernel."""
    if not name.isidentifier() or keyword.iskeyword(name) or name in CONSTANTS:
        raise LanguageError(f"{name!r} cannot be a name", hint="names are Python identifiers other than keywords, inf and nan")
