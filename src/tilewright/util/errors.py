"""The exception hierarchy: every error names the object, the rule it breaks, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

#: Characters of a line of source that an error shows.
LONGEST_LINE = 200


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the user's source: file, 1-based line, and that line's text."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        line = self.text.strip()
        shown = line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."  # generated sources have lines of any length
        return f"{where}: {shown}" if line else where


class TilewrightError(Exception):
    """Base class of all errors raised on purpose by Tilewright.

    ``message`` says what is wrong (naming the object and the rule), ``hint`` says what to do
    about it, ``location`` points at the user's source where there is one.
    """

    def __init__(self, message: str, *, hint: str | None = None, location: Location | None = None):
        self.message = message
        self.hint = hint
        self.location = location
        super().__init__(message)

    def __str__(self) -> str:
        parts = [f"{self.location}\n  {self.message}" if self.location else self.message]
        if self.hint:
            parts.append(f"  hint: {self.hint}")
        return "\n".join(parts)


class LanguageError(TilewrightError):
    """A program the kernel language does not allow (syntax, names, forms)."""


class IRTypeError(TilewrightError):
    """An expression or statement whose types, ranks or structure do not fit."""


class ExecutionError(TilewrightError):
    """A run that did what no program may do: an index outside its buffer, a division by zero, use of undefined data."""


class MachineError(TilewrightError):
    """A machine or instruction declaration that contradicts itself."""


class MappingError(TilewrightError):
    """A mapping text or request that is invalid for the operator and the instruction."""


class ScheduleError(TilewrightError):
    """A schedule primitive whose precondition does not hold: the program is left untouched."""


class SpaceError(TilewrightError):
    """A schedule space without a valid point, or a point that is not of the space."""


class CodegenError(TilewrightError):
    """A kernel that a backend cannot emit."""


class RuntimeFailure(TilewrightError):
    """A compiled module could not be built, loaded or called (bad arguments, full disk, ...)."""


class TuneError(TilewrightError):
    """A search that cannot start or found nothing: an unknown author, a budget too small, no candidate that works."""


class ImportFailure(TilewrightError):
    """A model file that cannot be read: corrupt, truncated, unbound dimensions."""


class UnsupportedOperator(ImportFailure):
    """A graph operator that has no lowering."""
