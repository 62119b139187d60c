"""Running compiled kernels: building, calling, caching, measuring, checking, exporting."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.runtime.arguments import Packed
    from tilewright.runtime.cache import BuildCache, build_cache
    from tilewright.runtime.exporter import export
    from tilewright.runtime.measurement import Measurement, measure
    from tilewright.runtime.module import BoundCall, Module, build
    from tilewright.runtime.packing import pack, unpack
    from tilewright.runtime.peak import Peak, measure_peak
    from tilewright.runtime.pool import ThreadPool, default_threads
    from tilewright.runtime.sequence import Sequence, Step
    from tilewright.runtime.verify import CheckReport, check

_HOME = {
    "BoundCall": "module",
    "BuildCache": "cache",
    "CheckReport": "verify",
    "Measurement": "measurement",
    "Module": "module",
    "Packed": "arguments",
    "Peak": "peak",
    "Sequence": "sequence",
    "Step": "sequence",
    "ThreadPool": "pool",
    "build": "module",
    "build_cache": "cache",
    "check": "verify",
    "default_threads": "pool",
    "export": "exporter",
    "measure": "measurement",
    "measure_peak": "peak",
    "pack": "packing",
    "unpack": "packing",
}

__all__ = [
    "BoundCall",
    "BuildCache",
    "CheckReport",
    "Measurement",
    "Module",
    "Packed",
    "Peak",
    "Sequence",
    "Step",
    "ThreadPool",
    "build",
    "build_cache",
    "check",
    "default_threads",
    "export",
    "measure",
    "measure_peak",
    "pack",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
