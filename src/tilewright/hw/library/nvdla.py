"""NVDLA's convolution core: kernels side by side, input channels side by side below each, a buffer for inputs and weights.

Sizes are those of its public configurations; 256 sums for each kernel are ours, for what its accumulator holds. Energies
and main memory are on the same basis as Gemmini's (:mod:`tilewright.hw.library.picojoules`).
"""

from __future__ import annotations

from tilewright.hw.family import Family, Parameter
from tilewright.hw.hierarchy import STREAMED, Hierarchy, Storage
from tilewright.hw.library.picojoules import MAIN, MULTIPLY_ADD, REGISTER, accumulator, shared

#: ``nv_small`` (64 multipliers) and ``nv_large`` (2,048).
SMALL = {"kernels": 8, "channels": 8, "buffer_bytes": 128 << 10, "accumulator_bytes": 8 * 256 * 4}
LARGE = {"kernels": 32, "channels": 64, "buffer_bytes": 512 << 10, "accumulator_bytes": 32 * 256 * 4}


def family(name: str = "nvdla") -> Family:
    """Cores of any size: main memory L3, convolution buffer L2, accumulator of each kernel L1, a weight in each multiplier L0."""
    hierarchy = Hierarchy(
        name,
        (
            Storage("L3", energy=MAIN, words_per_cycle=8),
            Storage(
                "L2",
                energy=lambda m: shared(m["buffer_bytes"] / 1024),
                words_per_cycle=lambda m: m["kernels"] + m["channels"],
                words=lambda m: m["buffer_bytes"],
                reuse=STREAMED,
            ),
            Storage(
                "L1",
                energy=lambda m: accumulator(m["accumulator_bytes"] / 1024 / m["kernels"]),
                words_per_cycle=2,
                words=lambda m: m["accumulator_bytes"] / 4 / m["kernels"],
                word_bytes=4,
            ),
            Storage("L0", energy=REGISTER, words=1),
        ),
        arithmetic=MULTIPLY_ADD,
        parameters=("kernels", "channels", "buffer_bytes", "accumulator_bytes"),
    )
    return Family(
        name,
        hierarchy,
        keeps=(("WIO",), ("WI",), ("O",), ("W",)),
        orders=(("KCRSNQP", "CRSNPQK", "KNPQCSR"), ("",), ("KCRSNQP",), ("",)),
        spatial=("", "K", "C", ""),
        fanout=(1, 64, 128, 1),
        parameters=(
            Parameter("kernels", (lambda u, _: u.units["L2"],), most=64),
            Parameter("channels", (lambda u, _: u.units["L1"],), most=128),
            Parameter("buffer_bytes", (lambda u, _: u.held["L2"],), step=1024, least=1024),
            Parameter("accumulator_bytes", (lambda u, m: u.held["L1"] * m["kernels"] * 4,), step=256, least=256),
        ),
    )
