"""What a Gemmini computes with: the types of its inputs and of its sums, and what becomes of values between the two.

Integers saturate on their way out and scales round to nearest even; floats are rounded, once for each operation, and nothing saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr
from tilewright.ir.types import DType, bf16, f16, f32, i8, i16, i32
from tilewright.util.errors import MachineError

#: Pairs of inputs and sums for which there is arithmetic.
KINDS = ((i8, i32), (i16, i32), (f32, f32), (bf16, f32), (f16, f32))


@dataclass(frozen=True, slots=True)
class Types:
    """Elements are ``inputs`` in the scratchpad and ``sums`` in the accumulator. ``column``: what sums are on their way down a column of
    the array, the generator's ``spatialArrayOutputType`` (None: inputs for floats, wide enough to be exact for integers). Sums that are
    not given are f32 for floats, i32 for integers.

    MachineError for pairs that no arithmetic is known for.
    """

    inputs: DType = i8
    sums: DType = None  # type: ignore[assignment]  # __post_init__ knows
    column: DType | None = None

    def __post_init__(self) -> None:
        if self.sums is None:
            object.__setattr__(self, "sums", f32 if self.real else i32)
        if (self.inputs, self.sums) not in KINDS:
            known = ", ".join(f"{a} into {b}" for a, b in KINDS)
            raise MachineError(f"a Gemmini that multiplies {self.inputs} into {self.sums}: no arithmetic is known for it", hint=known)
        if self.column not in ((self.inputs, self.sums, None) if self.real else (None,)):
            hint = f"{self.inputs} or {self.sums}" if self.real else "leave it out: columns of integers are exact"
            raise MachineError(f"sums of {self.inputs} that are {self.column} on their way down a column", hint=hint)

    @property
    def real(self) -> bool:
        """Whether elements are floats."""
        return self.inputs.is_float

    @property
    def mixed(self) -> bool:
        """Whether sums are wider than inputs, so that the accumulator is loaded and read in two ways."""
        return self.inputs != self.sums

    def column_bits(self, dim: int) -> int:
        """Bits of a sum that leaves a column of ``dim`` units: for integers the generator's 20, or what is exact where that is more."""
        if self.real:
            return (self.column or self.inputs).bits
        return max(20, 2 * self.inputs.bits + (dim - 1).bit_length())

    @property
    def unscaled(self) -> int:
        """1.0 as the bits of a scale of loads: an f32, but for f16 inputs, whose scales are f16."""
        return 0x3C00 if self.inputs == f16 else 0x3F800000

    # What instructions compute, on expressions

    def product(self, a: Expr, b: Expr) -> Expr:
        """What is added to a sum."""
        return ex.cast(a, self.sums) * ex.cast(b, self.sums) if self.real else a * b

    def stored(self, x: Expr, relu: int = 0) -> Expr:
        """A sum as an input; with ``relu`` 0 where it is negative."""
        if self.real:
            return ex.cast(ex.binary("max", x, 0) if relu else x, self.inputs)
        least, most = self.inputs.range
        return ex.cast(ex.binary("min", ex.binary("max", x, 0 if relu else least), most), self.inputs)

    def scaled(self, x: Expr, scale: Expr, relu: int = 0) -> Expr:
        """A sum, or an integer input, times an f32, as an input; with ``relu`` 0 where it is negative."""
        product = ex.cast(x, f32) * scale
        return self.stored(product if self.real else ex.intrinsic("round", product), relu)


INT8, INT16 = Types(), Types(i16)
#: The generator's floating-point configurations (inputs, accumulator and columns as there).
FP32, BF16, FP16 = Types(f32), Types(bf16), Types(f16)
