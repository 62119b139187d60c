"""Eyeriss: an array of processing elements, each with its own memories for inputs, weights and sums; rows of filters stay in place.

Sizes are those of the published chip (168 elements, 108 KB shared, 12 + 224 + 24 words in each element, all of 16 bits). Energies
and main memory are on the same basis as Gemmini's (:mod:`tilewright.hw.library.picojoules`), so words cost as if they had 8 bits.
"""

from __future__ import annotations

from tilewright.hw.family import Family, Parameter
from tilewright.hw.hierarchy import Hierarchy, Storage
from tilewright.hw.library.picojoules import MAIN, MULTIPLY_ADD, REGISTER, shared

CHIP = {"elements": 168, "shared_words": 54 << 10, "sum_words": 24, "weight_words": 224, "input_words": 12}


def family(name: str = "eyeriss") -> Family:
    """Chips of any size: main memory L4, shared memory L3 (inputs and sums), and in each element inputs L2, weights L1, sums L0.

    Rows of the filter (R) and of the output (P) are spread over the elements; kernels and channels fill what is left. An element
    keeps a part of the filter's row (S) for some channels and kernels; positions in a row of outputs (Q) pass by.
    """
    hierarchy = Hierarchy(
        name,
        (
            Storage("L4", energy=MAIN, words_per_cycle=8),
            Storage("L3", energy=lambda m: shared(m["shared_words"] * 2 / 1024), words_per_cycle=16, words=lambda m: m["shared_words"]),
            Storage("L2", energy=REGISTER, words_per_cycle=2, words=lambda m: m["input_words"]),
            Storage("L1", energy=REGISTER, words_per_cycle=2, words=lambda m: m["weight_words"]),
            Storage("L0", energy=REGISTER, words_per_cycle=2, words=lambda m: m["sum_words"]),
        ),
        arithmetic=MULTIPLY_ADD,
        parameters=("elements", "shared_words", "sum_words", "weight_words", "input_words"),
    )
    return Family(
        name,
        hierarchy,
        keeps=(("WIO",), ("IO",), ("I",), ("W",), ("O",)),
        orders=(("KCRSNQP", "CRSNPQK", "KNPQCSR"), ("KCNQP",), ("",), ("CS",), ("K",)),
        spatial=("", "RPKC", "", "", ""),
        fanout=(1, 168, 1, 1, 1),
        parameters=(
            Parameter("elements", (lambda u, _: u.units["L3"],), most=1024),
            Parameter("shared_words", (lambda u, _: u.held["L3"],), step=512, least=512),
            Parameter("sum_words", (lambda u, _: u.held["L0"],)),
            Parameter("weight_words", (lambda u, _: u.held["L1"],)),
            Parameter("input_words", (lambda u, _: u.held["L2"],)),
        ),
    )
