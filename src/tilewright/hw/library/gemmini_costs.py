"""What Gemminis of any size cost: square millimetres, and the cycles that a roofline leaves out. Constants are fits by scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any

#: What area is proportional to: units, columns (with the periphery of their accumulators), kilobytes of each memory, the rest.
AREA_TERMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "unit": lambda m: m["dim"] * m["dim"],
    "column": lambda m: m["dim"],
    "accumulator": lambda m: m["accumulator_bytes"] / 1024,
    "scratchpad": lambda m: m["scratchpad_bytes"] / 1024,
    "rest": lambda _: 1.0,
}
#: Square millimetres for each, from ``benchmarks/area_model.py``.
AREA = {"unit": 0.0004005, "column": 0.001634, "accumulator": 0.005631, "scratchpad": 0.002586, "rest": 0.008467}
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
    """Square millimetres of a machine with ``dim``, ``scratchpad_bytes`` and ``accumulator_bytes``: numbers, arrays, tensors or formulas.

    A fit to Accelergy's estimates for 65 architectures (2 to 128 units a side).
    """
    return reduce(add, (AREA[name] * term(machine) for name, term in AREA_TERMS.items()))
