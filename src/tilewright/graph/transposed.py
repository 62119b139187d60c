"""Quantised transposed convolutions as convolutions: one for each phase of the result, all in one, whose results are then interleaved.

The result of a stride of s has s x s phases, by its row and column modulo s. In each, neighbours come from neighbours of the input, through
every s-th element of the kernel, turned around: a convolution of ceil(kernel / s). Its channels are the phases of the result's,
which DepthToSpace puts in place. What lies before and after the result is cut off, as quantisation has no part in either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import NodeProto

#: Of ``slice``: to the end.
_END = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Transposed:
    """A transposed convolution of images: what to pad, how often a channel appears, where the result is in what is interleaved."""

    stride: int
    taps: tuple[int, ...]
    group: int
    pads: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @staticmethod
    def of(node: NodeProto, kernel: Sequence[int]) -> Transposed | None:
        """The one that ``node`` says; None unless images move alike along both axes, and pads are given as numbers."""
        from onnx import helper

        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        strides, pads, extra = said.get("strides", [1, 1]), said.get("pads", [0] * 4), said.get("output_padding", [0, 0])
        automatic, dilations = said.get("auto_pad", b"NOTSET"), said.get("dilations", [1, 1])
        if (
            len(kernel) != 2
            or strides[0] != strides[1]
            or automatic != b"NOTSET"
            or "output_shape" in said
            or any(d != 1 for d in dilations)
        ):
            return None
        s = strides[0]
        taps = tuple(-(-k // s) for k in kernel)
        after = [s * m - k - e + p for m, k, e, p in zip(taps, kernel, extra, pads[2:], strict=True)]
        if min(after) < 0:  # the result goes on where no input comes near
            return None
        # Whole positions of the convolution that are cut off need not be computed.
        early, late = ([min(m - 1, cut // s) for m, cut in zip(taps, cuts, strict=True)] for cuts in (pads[:2], after))
        begin = tuple(p - s * n for p, n in zip(pads[:2], early, strict=True))
        end = tuple(-(a - s * n) or _END for a, n in zip(after, late, strict=True))
        around = tuple(m - 1 - n for side in (early, late) for m, n in zip(taps, side, strict=True))
        return Transposed(s, taps, said.get("group", 1), around, begin, end)

    def weights(self, w: NDArray[np.generic], zero: NDArray[np.generic]) -> NDArray[np.generic]:
        """``w`` [C, K / group, rows, columns] as [K * s * s, C / group, *taps]: phases of a channel follow each other."""
        s, (channels, each, *kernel) = self.stride, w.shape
        depth = channels // self.group
        out = np.empty((self.group, each, s, s, depth, *self.taps), w.dtype)
        out[...] = np.broadcast_to(zero.reshape(-1, *[1] * 5) if zero.size > 1 else zero, (self.group * each, 1, 1, 1, 1, 1)).reshape(
            self.group, each, 1, 1, 1, 1, 1
        )
        split = w.reshape(self.group, depth, each, *kernel)
        for (a, b), (u, v) in product(np.ndindex(s, s), np.ndindex(*self.taps)):
            row, col = a + s * (self.taps[0] - 1 - u), b + s * (self.taps[1] - 1 - v)
            if row < kernel[0] and col < kernel[1]:
                out[:, :, a, b, :, u, v] = split[:, :, :, row, col].transpose(0, 2, 1)
        return out.reshape(-1, depth, *self.taps)

    def for_phases(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Numbers for each channel as numbers for each phase of it; one number stays."""
        return np.repeat(values.reshape(-1), self.stride**2) if values.size > 1 else values

    def nodes(self, inputs: Sequence[str], name: str, result: str, constant: Callable[[str, NDArray[np.generic]], str]) -> list[NodeProto]:
        """QLinearConv on ``inputs``, DepthToSpace, Slice: those of them that do something. ``constant`` names arrays."""
        from onnx import helper

        made: list[tuple[str, list[str], dict[str, Any]]]
        made = [("QLinearConv", list(inputs), {"pads": list(self.pads), "group": self.group, "kernel_shape": list(self.taps)})]
        if self.stride > 1:
            made.append(("DepthToSpace", [], {"blocksize": self.stride, "mode": "CRD"}))
        if any(self.begin) or any(e != _END for e in self.end):
            bounds = (("begin", self.begin), ("end", self.end), ("axes", (2, 3)))
            made.append(("Slice", [constant(f"{result}_{n}", np.array(v, np.int64)) for n, v in bounds], {}))
        nodes: list[NodeProto] = []
        for n, (kind, given, attributes) in enumerate(made):
            source = [f"{result}_part{n - 1}"] if n else []
            target = result if n == len(made) - 1 else f"{result}_part{n}"
            nodes.append(helper.make_node(kind, [*source, *given], [target], f"{name}_{kind}" if name else "", **attributes))
        return nodes
