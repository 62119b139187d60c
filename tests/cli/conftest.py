"""Models and programs the commands are run on; a build cache of their own."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from examples.vit import ViTConfig, vit

KERNELS = """
from tilewright import Schedule
from tilewright.lang import f32, kernel


@kernel
def gemm(a: f32[32, 24], b: f32[24, 48], c: f32[32, 48]):
    for i in range(32):
        for j in range(48):
            c[i, j] = 0.0
    for i in range(32):
        for j in range(48):
            for k in range(24):
                c[i, j] += a[i, k] * b[k, j]


by_hand = Schedule(gemm)
by_hand.unroll("k")
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Vision Transformer with a dynamic batch."""
    path = tmp_path_factory.mktemp("models") / "vit.onnx"
    onnx.save(vit(ViTConfig(image=16, patch=8, width=16, heads=2, mlp=24, layers=1, classes=5)), path)
    return path


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A file with a kernel ``gemm`` and a schedule of it, ``by_hand``."""
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands neither use nor fill the user's build cache (one for all tests: compiling once is enough)."""
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
