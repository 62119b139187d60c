"""Places in the user's source, for error messages and for the ``loc`` of statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.util.errors import LanguageError, Location, TilewrightError


@dataclass(frozen=True, slots=True)
class Source:
    """A text and where it comes from: ``first`` is the file's line number of ``lines[0]``."""

    file: str
    lines: tuple[str, ...]
    first: int = 1

    def location(self, node: ast.AST) -> Location:
        """Where ``node`` begins (nodes without a place: the first line)."""
        row = getattr(node, "lineno", 1)
        return Location(self.file, self.first + row - 1, self.lines[row - 1] if row <= len(self.lines) else "")

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> LanguageError:
        """A LanguageError that points at ``node``."""
        return LanguageError(message, hint=hint, location=self.location(node))

    @contextmanager
    def blame(self, node: ast.AST) -> Iterator[None]:
        """Errors of IR constructors raised inside point at ``node``."""
        try:
            yield
        except TilewrightError as error:
            if error.location is None:
                error.location = self.location(node)
            raise
