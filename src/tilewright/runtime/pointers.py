"""Arrays of addresses for block programs that find their operands in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tilewright.util.errors import RuntimeFailure


@dataclass(frozen=True, slots=True, eq=False)
class Pointers:
    """What :func:`pointers` makes."""

    arrays: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.arrays)


def pointers(arrays: Iterable[Any]) -> Pointers:
    """The addresses of ``arrays``, to be passed where a program loads addresses: ``tl.load(p + g).to(tl.pointer_type(...))``.

    Integers that were taken with ``data_ptr()`` do not do: nothing says how much memory is behind them.
    RuntimeFailure for what is no array.
    """
    out = tuple(arrays)
    for n, x in enumerate(out):
        if not hasattr(x, "__dlpack__"):
            raise RuntimeFailure(f"pointers: item {n} is no array but {x!r}", hint="pass the arrays, not their addresses")
    return Pointers(out)
