"""What a schedule depends on beside kernel and machine: the code that chooses it."""

from __future__ import annotations

from functools import cache as once
from pathlib import Path

from tilewright.util.digest import sources

#: Packages whose code decides a schedule.
DECIDING = ("ir", "lang", "hw", "mapping", "schedule", "cost", "space")


@once
def deciding() -> str:
    """Digest of that code: results kept from one version to the next have it in their keys."""
    return sources(Path(__file__).parent.parent, DECIDING)
