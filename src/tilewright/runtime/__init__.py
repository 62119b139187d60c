"""Running compiled kernels: building, calling, caching, measuring, checking, exporting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

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
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
