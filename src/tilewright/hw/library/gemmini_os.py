"""Gemmini with results that stay: each unit sums one result, inputs and weights pass by.

The array of the weight-stationary machine, used the other way: output channels on its columns, positions of the output (rows of a matrix
product) on its rows. A unit's register has the sum that it works on; finished sums go to the accumulator of its column. Memories, their
energies and the area are those of :mod:`tilewright.hw.library.gemmini`; a sum in a register costs what a weight there does.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.hw.family import Family
from tilewright.hw.library import gemmini
from tilewright.hw.library.gemmini_config import files
from tilewright.hw.library.gemmini_types import INT8, Types


def family(name: str = "gemmini_os", dim: int = 128, types: Types = INT8) -> Family:
    """Machines of any size up to ``dim`` x ``dim`` units, outputs stationary. Loops over what is summed run in the units, or around all."""
    weights = gemmini.family(name, dim, types)
    *outer, registers = weights.hierarchy.levels
    return replace(
        weights,
        hierarchy=replace(weights.hierarchy, levels=(*outer, replace(registers, word_bytes=types.sums.nbytes))),
        keeps=(("WIO",), ("WI",), ("O",), ("O",)),
        orders=(weights.orders[0], ("",), ("KNQP",), ("CRS",)),
        spatial=("", "K", "PQN", ""),
        files=files(types, "OS"),
        array_rates={},
    )
