"""A learned correction of :class:`~tilewright.cost.residual.ArrayTime`: attention over a tile's dimensions predicts what is left.

One token for each dimension of the layer (its part of the tile; side of the array, tiles, stride, arithmetic and memory of a tile with
each), two encoder layers, the mean of them to one number: the logarithm of measured over predicted cycles. Needs torch.

An experiment, not what searches use: on layers held out its errors are smaller, but it chooses mappings less well than the constants alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tilewright.cost.residual import ArrayTime, Rates

_DIMS = "NKCPQRS"
WIDTH, HEADS, LAYERS, HIDDEN, DROPOUT = 32, 4, 2, 64, 0.1
EPOCHS, BATCHES, RATE, DECAY = 15, 12, 4e-3, 1e-2


class _Encoder(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.read = nn.Linear(features, WIDTH)
        self.places = nn.Parameter(torch.randn(len(_DIMS), WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=DROPOUT, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.out = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.out.weight)  # before training there is no correction
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.encoder(self.read(tokens) + self.places)
        corrected: torch.Tensor = self.out(mixed.mean(dim=1))[:, 0]
        return corrected


@dataclass(frozen=True, slots=True)
class AttentionTime:
    """Cycles by ``base`` and a learned correction of it: ``fit``, ``predict``. Environments are those of :class:`ArrayTime`, in columns."""

    base: ArrayTime
    network: _Encoder
    mean: np.ndarray
    spread: np.ndarray

    @staticmethod
    def fit(env: Mapping[str, np.ndarray], cycles: np.ndarray, seed: int = 0) -> AttentionTime:
        """Fit the constants, then the correction. The same rows and seed give the same model."""
        base = ArrayTime.fit(env, cycles)
        tokens = _tokens(base, env)
        mean, spread = tokens.mean(axis=(0, 1)), tokens.std(axis=(0, 1)) + 1e-6
        x = torch.tensor((tokens - mean) / spread, dtype=torch.float32)
        y = torch.tensor(np.log(cycles / base.predict(env)), dtype=torch.float32)
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Encoder(tokens.shape[2])
            steps = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
            for _ in range(EPOCHS):
                for batch in np.array_split(rng.permutation(len(y)), BATCHES):
                    steps.zero_grad()
                    nn.functional.smooth_l1_loss(network(x[batch]), y[batch], beta=0.3).backward()  # type: ignore[no-untyped-call]
                    steps.step()
        network.eval()
        return AttentionTime(base, network, mean, spread)

    def predict(self, env: Mapping[str, np.ndarray]) -> np.ndarray:
        """Cycles of each row."""
        x = torch.tensor((_tokens(self.base, env) - self.mean) / self.spread, dtype=torch.float32)
        with torch.no_grad():
            return np.asarray(self.base.predict(env) * np.exp(self.network(x).numpy().astype(np.float64)))


def _tokens(base: ArrayTime, env: Mapping[str, np.ndarray]) -> np.ndarray:
    """[rows, dimensions, features], all logarithms."""
    r = base.rates
    arithmetic = ArrayTime(Rates(r.tile, r.row, r.preload, 0, 0, 0, 0)).predict(env) / env["tiles"]
    memory = ArrayTime(Rates(0, 0, 0, r.input_word, r.input_row, r.weight_word, r.weight_row)).predict(env) / env["tiles"]
    shared = [np.log(np.maximum(v, 1e-6)) for v in (env["dim"], env["tiles"], env["SH"], arithmetic, memory)]
    return np.stack([np.stack([np.log(env[f"tile.{d}"]), *shared], axis=1) for d in _DIMS], axis=1)
