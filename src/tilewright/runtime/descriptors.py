"""Tensor descriptors that the host makes: what block programs access in blocks, as arguments of a launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.lang.block.builder import checked_shape
from tilewright.lang.block.source import BlockError
from tilewright.runtime.dlpack import as_numpy
from tilewright.util.errors import RuntimeFailure


@dataclass(eq=False)
class TensorDescriptor:
    """``base`` seen as a tensor of ``shape`` and ``strides`` (in elements), accessed in blocks of ``block_shape``.

    Loads outside ``shape`` are zero, stores there do nothing. ``block_shape`` may be set until the launch, which is what
    ``pre_hook`` of a configuration is for. RuntimeFailure where the parts do not fit one another or the array.
    """

    base: Any
    shape: Sequence[int]
    strides: Sequence[int]
    block_shape: Sequence[int]
    padding: str = "zero"

    def __post_init__(self) -> None:
        if not hasattr(self.base, "__dlpack__"):
            raise RuntimeFailure(f"TensorDescriptor of {self.base!r}: it is no array", hint="TensorDescriptor.from_tensor(x, block_shape)")
        self.check()

    @classmethod
    def from_tensor(cls, tensor: Any, block_shape: Sequence[int], padding: str = "zero") -> TensorDescriptor:
        """The descriptor of a whole array."""
        if not hasattr(tensor, "__dlpack__"):
            raise RuntimeFailure(f"TensorDescriptor.from_tensor of {tensor!r}: it is no array", hint="pass a NumPy array or a torch tensor")
        x = as_numpy(tensor, "the tensor of a descriptor")
        return cls(tensor, list(x.shape), [s // x.itemsize for s in x.strides], block_shape, padding)

    def check(self) -> None:
        """RuntimeFailure for what a launch cannot take."""
        ranks = [len(self.shape), len(self.strides), len(self.block_shape)]
        if len(set(ranks)) != 1:
            raise RuntimeFailure("TensorDescriptor: shape, strides and block_shape have {}, {} and {} entries".format(*ranks))
        if self.padding != "zero":
            raise RuntimeFailure(f"TensorDescriptor: padding {self.padding!r} is not supported", hint='"zero"')
        if not ranks[0] or self.strides[-1] != 1:
            hint = "numpy.ascontiguousarray(x)"
            raise RuntimeFailure(f"TensorDescriptor: the last stride of {list(self.strides)} is not 1", hint=hint)
        if any(n < 1 for n in self.shape) or any(s < 0 for s in self.strides):
            raise RuntimeFailure(f"TensorDescriptor: shape {list(self.shape)} with strides {list(self.strides)} is no tensor")
        try:
            checked_shape(tuple(map(int, self.block_shape)))
        except BlockError as error:
            raise RuntimeFailure(f"TensorDescriptor: {error.message}", hint=error.hint) from None
        held = as_numpy(self.base, "the base of a descriptor")
        behind = 1 + sum((n - 1) * (s // held.itemsize) for n, s in zip(held.shape, held.strides, strict=True)) if held.size else 0
        needed = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if needed > behind:
            raise RuntimeFailure(f"TensorDescriptor: shape {list(self.shape)} needs {needed} elements, its array has {behind}")
