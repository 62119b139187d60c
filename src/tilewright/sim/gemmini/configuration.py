"""What the simulators need to know of a declared machine: sizes, types and queues of one Gemmini."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw import Machine
from tilewright.ir.types import DType, f16, i8, i32
from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class Configuration:
    """One Gemmini. ``dim`` rows and columns of the array; capacities in rows of ``dim`` elements; bytes of the bus and of
    the largest request, requests outstanding; entries of the queues and of the reservation station; types of elements in the
    scratchpad (``inputs``) and in the accumulator (``sums``).

    ``array_bits`` is the width of a result leaving the array: the generator's default is 20, enough for a column of 16. Of floats: that of
    their inputs or of their sums, which is the type of what goes down a column. ``norm_stats``: sets of statistics of the normalisation
    unit, which knows int8 only, 0 where there is none. ``tile_latency``: registers from a unit to the next, beyond one.
    """

    dim: int
    spad_rows: int
    acc_rows: int
    spad_banks: int = 4
    acc_banks: int = 2
    bus_bytes: int = 16
    max_bytes: int = 64
    requests: int = 16
    load_queue: int = 8
    store_queue: int = 2
    execute_queue: int = 8
    load_entries: int = 8
    store_entries: int = 4
    execute_entries: int = 16
    inputs: DType = i8
    sums: DType = i32
    array_bits: int = 20
    norm_stats: int = 0
    tile_latency: int = 0

    def __post_init__(self) -> None:
        sizes = (self.dim, self.bus_bytes, self.max_bytes)
        if min(sizes) < 1 or self.bus_bytes & (self.bus_bytes - 1) or self.max_bytes % self.bus_bytes:
            raise MachineError(
                f"array of {self.dim}, bus of {self.bus_bytes} bytes, requests of at most {self.max_bytes}: not a Gemmini",
                hint="the bus is a power of two, the largest request a multiple of it",
            )

        if self.norm_stats and self.inputs != i8:
            raise MachineError(f"a normalisation unit of a Gemmini for {self.inputs}: it is for i8", hint="leave norm_stats at 0")

    @staticmethod
    def of(machine: Machine) -> Configuration:
        """The configuration of a declared Gemmini; MachineError if ``machine`` is not one."""
        parameters = machine.parameters
        if "dim" not in parameters or not {"spad", "acc"} <= {m.name for m in machine.memories}:
            raise MachineError(
                f"{machine.name} is not a Gemmini: it lacks a dim, a spad or an acc", hint="hw/library/gemmini.py declares one"
            )
        dim = parameters["dim"]
        operands = {o.name: o.dtype for o in machine.instruction("matmul").operands}
        inputs, sums = operands["a"], operands["c"]
        spad, acc = machine.memory("spad"), machine.memory("acc")
        return Configuration(
            dim=dim,
            spad_rows=(spad.bytes or 0) // spad.line,
            acc_rows=(acc.bytes or 0) // acc.line,
            spad_banks=spad.banks,
            acc_banks=acc.banks,
            bus_bytes=parameters["dma_bytes"],
            max_bytes=parameters["dma_max_bytes"],
            requests=parameters["dma_requests"],
            inputs=inputs,
            sums=sums,
            array_bits=parameters["column_bits"],
            load_queue=parameters["load_queue"],
            store_queue=parameters["store_queue"],
            execute_queue=parameters["execute_queue"],
            load_entries=parameters["load_entries"],
            store_entries=parameters["store_entries"],
            execute_entries=parameters["execute_entries"],
            norm_stats=parameters["norm_stats"],
            tile_latency=parameters["tile_latency"],
        )

    @property
    def input_bytes(self) -> int:
        """Bytes of an element in the scratchpad."""
        return self.inputs.nbytes

    @property
    def acc_bytes(self) -> int:
        """Bytes of an element in the accumulator."""
        return self.sums.nbytes

    @property
    def passage(self) -> int:
        """Cycles that a sum takes down a column."""
        return self.dim * (1 + self.tile_latency)

    @property
    def column(self) -> DType:
        """Of floats: the type of sums on their way down a column."""
        return self.inputs if self.inputs.bits == self.array_bits else self.sums

    @property
    def unscaled(self) -> int:
        """1.0 as the bits of a scale of loads: an f32, but for f16 inputs, whose scales are f16."""
        return 0x3C00 if self.inputs == f16 else 0x3F800000

    def blocks(self, element_bytes: int) -> int:
        """Matrices of ``dim`` columns that one move of elements of this size may span."""
        return max(1, self.max_bytes // (self.dim * element_bytes))
