"""Tests of the runtime build into a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build cache for this test session, so that no test sees what an earlier run left."""
    root = tmp_path_factory.mktemp("build-cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("TILEWRIGHT_CACHE", str(root))
    yield root
    patch.undo()
