"""Layers of a network as a co-design search sees them: sizes of one nest of loops, and how often it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tilewright.cost.loopnest import convolution
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import SpaceError

#: The nest of all layers. A matrix product C[M, N] = A[M, K] * B[K, N] is the case P = M, C = K, K = N.
KERNEL: Kernel = convolution(("SH", "SW"), ("DH", "DW"))
#: Dimensions of the nest, and sizes of the layer that are no loops.
DIMS, STEPS = "NKCPQRS", ("SH", "SW", "DH", "DW")
#: Its tensors: weights, inputs, outputs.
TENSORS = "WIO"


@dataclass(frozen=True, slots=True)
class Layer:
    """``sizes`` by dimension (those left out are 1), strides and dilations as ``parameters``, and the ``count`` of such layers.

    ``weights``: W is the same for all samples of a batch; where it is computed (a product of attention) each sample has a layer of its own.
    SpaceError for names that are unknown and for values below 1.
    """

    name: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, int] = field(default_factory=dict)
    count: int = 1
    weights: bool = True

    def __post_init__(self) -> None:
        for what, given, known in (("dimension", self.sizes, DIMS), ("parameter", self.parameters, STEPS)):
            if unknown := [k for k in given if k not in known]:
                raise SpaceError(f"layer {self.name} has an unknown {what} {unknown[0]!r}", hint=f"known are {', '.join(known)}")
        for k, v in {**self.sizes, **self.parameters, "count": self.count}.items():
            if isinstance(v, bool) or not isinstance(v, int) or v < 1:
                raise SpaceError(f"layer {self.name} has {k} = {v!r}", hint="sizes, strides, dilations and counts are whole numbers from 1")
        object.__setattr__(self, "sizes", {d: int(self.sizes.get(d, 1)) for d in DIMS})
        object.__setattr__(self, "parameters", {s: int(self.parameters.get(s, 1)) for s in STEPS})

    @staticmethod
    def gemm(name: str, m: int, n: int, k: int, count: int = 1, weights: bool = True) -> Layer:
        """C[m, n] = A[m, k] * B[k, n], with the weights in B."""
        return Layer(name, {"P": m, "K": n, "C": k}, count=count, weights=weights)

    def batched(self, batch: int) -> Layer:
        """The layer for ``batch`` samples at once: so many in N, or so many layers where they have no weights in common."""
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise SpaceError(f"the batch is {batch!r}", hint="give a whole number of samples from 1")
        if not self.weights:
            return replace(self, count=self.count * batch)
        return replace(self, sizes={**self.sizes, "N": self.sizes["N"] * batch})

    @property
    def operations(self) -> int:
        """Multiply-accumulates of one such layer."""
        out = 1
        for size in self.sizes.values():
            out *= size
        return out

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
        """What makes two layers the same to a search."""
        return tuple(self.sizes.values()), tuple(self.parameters.values()), self.weights


def unique(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers of one shape as one, their counts added; SpaceError when there is none."""
    if not layers:
        raise SpaceError("there are no layers to search for", hint="give one layer or more")
    found: dict[tuple[tuple[int, ...], tuple[int, ...], bool], Layer] = {}
    for x in layers:
        known = found.get(x.shape)
        found[x.shape] = x if known is None else replace(known, count=known.count + x.count)
    return tuple(found.values())
