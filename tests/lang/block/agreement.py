"""A block program as the kernel it becomes, and as the Python function itself: they are to agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.lang.block import shim

import tilewright as tw
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.runtime.descriptors import TensorDescriptor
from tilewright.runtime.pointers import Pointers


def interpreted(program: Any, grid: Any, named: dict[str, Any]) -> Kernel:
    """Run the kernel of a launch in the interpreter, on the launch's own arrays."""
    function = getattr(program, "function", program)
    launch, values = function.specialized(grid, function.bound((), named), build=False)
    interpret(launch.kernel, [np.asarray(v) for v in values])
    return launch.kernel


def agree(program: Any, grid: tuple[int, ...], named: dict[str, Any], outputs: list[str], tolerance: float = 1e-4) -> Kernel:
    """The interpreted kernel against the program run directly; the kernel."""
    direct = {k: _copied(v) for k, v in named.items()}
    shim.run(program, grid, direct, np.random.default_rng(0))
    kernel = interpreted(program, grid, named)
    for name in outputs:
        for got, want in zip(_listed(named[name]), _listed(direct[name]), strict=True):
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert tw.parse(str(kernel)) == kernel
    return kernel


def _listed(x: Any) -> list[np.ndarray]:
    if isinstance(x, TensorDescriptor):
        return [x.base]
    return list(x.arrays if isinstance(x, Pointers) else x) if isinstance(x, (tuple, Pointers)) else [x]


def _copied(x: Any) -> Any:
    """``x`` with arrays copied, strides and all."""
    if isinstance(x, Pointers):
        return replace(x, arrays=_copied(x.arrays))
    if isinstance(x, TensorDescriptor):
        return replace(x, base=_copied(x.base))
    if not isinstance(x, np.ndarray):
        return tuple(map(_copied, x)) if isinstance(x, tuple) else x
    span = 1 + sum((n - 1) * s // x.itemsize for n, s in zip(x.shape, x.strides, strict=True))
    memory = np.lib.stride_tricks.as_strided(x, (span,), (x.itemsize,)).copy()
    return np.lib.stride_tricks.as_strided(memory, x.shape, x.strides)
