from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def idle_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run beside others: what the tuner says about that is no business of theirs."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
