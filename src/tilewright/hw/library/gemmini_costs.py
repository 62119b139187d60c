"""What Gemminis of any size cost: square millimetres, and the cycles that a roofline leaves out. Constants are fits by scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _kilobytes(m: Mapping[str, Any]) -> Any:
    """Of the accumulator of one column."""
    return m["accumulator_bytes"] / 1024 / m["dim"]


#: What area is proportional to: units, columns, cells and periphery (as the root of its size) of each memory.
AREA_TERMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "unit": lambda m: m["dim"] * m["dim"],
    "column": lambda m: m["dim"],
    "accumulator cells": lambda m: m["dim"] * _kilobytes(m),
    "accumulator periphery": lambda m: m["dim"] * _kilobytes(m) ** 0.5,
    "scratchpad cells": lambda m: m["scratchpad_bytes"] / 1024,
    "scratchpad periphery": lambda m: (m["scratchpad_bytes"] / 1024) ** 0.5,
}
#: Square millimetres for each, from ``benchmarks/area_model.py``.
AREA = {
    "unit": 0.0003963,
    "column": 0.0004226,
    "accumulator cells": 0.005173,
    "accumulator periphery": 0.002987,
    "scratchpad cells": 0.002505,
    "scratchpad periphery": 0.002243,
}
#: Cycles a tile, a row streamed, a row of weights preloaded, and words and rows of inputs and weights fetched take on the RTL: a fit of
#: ``tilewright.cost.residual.ArrayTime`` to measured cycles by ``benchmarks/rtl_residual.py --constants``.
RTL_RATES = {
    "tile": 151.5,
    "row": 1.045,
    "preload": 0.9987,
    "input_word": 0.1266,
    "input_row": 1.012,
    "weight_word": 0.08768,
    "weight_row": 1.965,
}


def area(machine: Mapping[str, Any]) -> Any:
    """Square millimetres of a machine with ``dim``, ``scratchpad_bytes`` and ``accumulator_bytes``: numbers, arrays or tensors.

    A fit to Accelergy's estimates for 65 architectures (2 to 128 units a side).
    """
    return sum(AREA[name] * term(machine) for name, term in AREA_TERMS.items())
