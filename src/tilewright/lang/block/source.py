"""Errors that show the user's line with a caret under the words they are about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.util.errors import LanguageError, Location, TilewrightError


class BlockError(LanguageError):
    """A block program that the language does not allow; prints the line and what in it is meant."""

    def __init__(self, message: str, *, hint: str | None = None, location: Location | None = None, columns: tuple[int, int] | None = None):
        super().__init__(message, hint=hint, location=location)
        self.columns = columns

    def __str__(self) -> str:
        parts = []
        if self.location is not None:
            parts.append(f"{self.location.file}:{self.location.line}")
            if self.location.text:
                text = self.location.text.rstrip()
                parts.append(f"  {text}")
                if self.columns is not None:
                    first, last = self.columns
                    parts.append(f"  {' ' * first}{'^' * max(1, min(last, len(text)) - first)}")
        parts.append(f"  {self.message}")
        if self.hint:
            parts.append(f"  hint: {self.hint}")
        return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class Text:
    """The text of one function: ``first`` is the file's line number of ``lines[0]``, ``shift`` the indentation taken off."""

    file: str
    lines: tuple[str, ...]
    first: int = 1
    shift: int = 0

    def location(self, node: ast.AST) -> Location:
        row = getattr(node, "lineno", 1)
        return Location(self.file, self.first + row - 1, self.lines[row - 1] if row <= len(self.lines) else "")

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> BlockError:
        """A BlockError about ``node``."""
        return BlockError(message, hint=hint, location=self.location(node), columns=self._columns(node))

    def _columns(self, node: ast.AST) -> tuple[int, int]:
        first = getattr(node, "col_offset", 0)
        one_line = getattr(node, "end_lineno", None) == getattr(node, "lineno", 1)
        last = (getattr(node, "end_col_offset", None) or first + 1) if one_line else 1 << 30
        return first + self.shift, last + self.shift

    @contextmanager
    def blame(self, node: ast.AST) -> Iterator[None]:
        """Errors raised inside without a place are about ``node``."""
        try:
            yield
        except BlockError as error:
            if error.location is None:
                error.location, error.columns = self.location(node), self._columns(node)
            raise
        except TilewrightError as error:
            raise self.error(node, error.message, error.hint) from error
