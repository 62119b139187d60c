"""Inputs for networks that nobody has data for: benchmarks, demonstrations, tuning."""

from __future__ import annotations

import numpy as np

from tilewright.graph.elements import user_array
from tilewright.graph.network import Network
from tilewright.runtime.verify import random_array


def random_inputs(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name: floats in [-1, 1); integers 0 or 1, which every vocabulary and mask allows."""
    rng = np.random.default_rng(seed)
    out = {}
    for v in network.graph.inputs:
        stored = random_array(v.buffer.dtype, v.buffer.static_shape, rng, limit=2)
        out[v.name] = user_array(stored, v.buffer.dtype)
    return out
