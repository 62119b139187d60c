"""Seconds of a program from a formula of its cycles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from tilewright.cost.formula import Formula
from tilewright.cost.tape import Tape


class Clocked:
    """Seconds that one symbolic program takes; call it with the values of its knobs: numbers, int arrays or tensors."""

    def __init__(self, cycles: Formula, clock_hz: float):
        self.cycles = cycles
        self._clock = clock_hz

    @cached_property
    def tape(self) -> Tape:
        """Computes cycles."""
        return Tape([self.cycles])

    def __call__(self, env: Mapping[str, Any]) -> Any:
        """Seconds of one call, one for each entry where the knobs are arrays."""
        seconds = self.tape(env)[0] / self._clock
        arrays = [v for v in env.values() if isinstance(v, np.ndarray)]
        return np.broadcast_to(seconds, arrays[0].shape) if arrays else seconds
