"""Are a network's outputs those of ONNX Runtime, up to the rounding that its depth explains?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from tilewright.cli.console import table
from tilewright.graph import Network
from tilewright.ir import stmt as st
from tilewright.runtime.verify import float_reductions, unit_roundoff

#: Allowance for cancellation inside one layer.
_CANCELLATION = 8.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output: largest absolute difference, what is allowed, and the largest magnitude of the expected values."""

    name: str
    error: float
    bound: float
    scale: float

    @property
    def holds(self) -> bool:
        return self.error <= self.bound


def accumulated_bound(network: Network) -> float:
    """Relative difference that two correct evaluations may have, with sums formed in any order.

    A sum of n terms is off by a random walk of n roundings, sqrt(n) units; the layers' errors add up.
    """
    total = unit = 0.0
    for kernel in (s.call.kernel for s in network.steps):
        units = [unit_roundoff(b.dtype) for b in st.all_buffers(kernel) if b.dtype.is_float]
        unit = max([unit, *units])
        total += 1.0 + sum(float(np.sqrt(length)) for _, length in float_reductions(kernel))
    return _CANCELLATION * unit * total


def compare(network: Network, got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> list[Agreement]:
    """One agreement for each output: integers have to be equal, floats within :func:`accumulated_bound`."""
    relative = accumulated_bound(network)
    return [_agreement(name, got[name], want, relative) for name, want in expected.items()]


def _agreement(name: str, got: np.ndarray, want: np.ndarray, relative: float) -> Agreement:
    if got.shape != want.shape or got.dtype != want.dtype:
        return Agreement(name, float("inf"), 0.0, 0.0)
    if want.dtype.kind in "biu":
        return Agreement(name, float(np.count_nonzero(got != want)), 0.0, 0.0)
    ours, theirs = got.astype(np.float64), want.astype(np.float64)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(ours - theirs))
    error = float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
    scale = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0))
    return Agreement(name, error, relative * scale, scale)


def agreement_table(found: Iterable[Agreement]) -> Table:
    """The agreements for people."""
    out = table("output", "largest difference", "allowed", "largest value", "", numbers=("largest difference", "allowed", "largest value"))
    for a in found:
        verdict = "[green]agrees[/]" if a.holds else "[red]DIFFERS[/]"
        out.add_row(a.name, f"{a.error:.2g}", f"{a.bound:.2g}", f"{a.scale:.3g}", verdict)
    return out
