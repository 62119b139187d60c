"""Quantities for people: a few digits and a unit."""

from __future__ import annotations


def bytes_text(n: float) -> str:
    """``6.9 MiB``."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f} B"


def count_text(n: float) -> str:
    """``237.6 M``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f}"


def seconds_text(t: float) -> str:
    """``12.3 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if t >= size:
            return f"{t / size:.2f} {unit}"
    return f"{t / 1e-6:.1f} us"
