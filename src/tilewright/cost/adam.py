"""Descents side by side: steps from gradients by Adam's averages."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Parts of the averages of slopes and of their squares that a step keeps.
MOMENTUM, VARIANCE = 0.9, 0.99
#: The last of all steps is this much shorter than the first.
SLOWING = 0.8


class Adam:
    """Moves of variables in an array of ``shape``, for so many ``steps``; ``rate`` is how far the first goes. Later ones are shorter."""

    def __init__(self, shape: tuple[int, ...], rate: float, steps: int):
        self._moment, self._square = np.zeros(shape), np.zeros(shape)
        self._rate, self._steps, self._taken = rate, steps, 0

    def step(self, slope: np.ndarray, own: Any = ...) -> np.ndarray:
        """What to subtract from the variables at ``own`` (an index; default: all), whose gradient is ``slope``."""
        self._taken += 1
        self._moment[own] = MOMENTUM * self._moment[own] + (1 - MOMENTUM) * slope
        self._square[own] = VARIANCE * self._square[own] + (1 - VARIANCE) * slope**2
        moment, square = self._moment[own] / (1 - MOMENTUM**self._taken), self._square[own] / (1 - VARIANCE**self._taken)
        rate = self._rate * (1 - SLOWING * self._taken / self._steps)
        return np.asarray(rate * moment / (np.sqrt(square) + 1e-8))
