"""Tilewright: a tensor compiler and accelerator co-design system.

Names load on first use, so that importing the package costs nothing:

>>> import tilewright as tw
>>> module = tw.build(kernel)
>>> c = module(a, b)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports
from tilewright.util.version import __version__ as __version__

#: Public name -> the module below this package that it lives in.
_HOME = {
    "Config": "runtime.configurations",
    "Kernel": "ir.stmt",
    "Machine": "hw",
    "Module": "runtime",
    "Network": "graph",
    "Schedule": "schedule.schedule",
    "TensorDescriptor": "runtime.descriptors",
    "TilewrightError": "util.errors",
    "autotune": "runtime.configurations",
    "build": "runtime",
    "cdiv": "runtime.launch",
    "check": "runtime",
    "compile": "graph",
    "compute": "lang",
    "default_schedule": "space.default",
    "einsum": "lang",
    "export": "runtime",
    "find_mappings": "mapping",
    "instruction": "hw",
    "interpret": "ir.interpreter",
    "jit": "runtime.launch",
    "kernel": "lang",
    "load_machine": "hw",
    "measure": "runtime",
    "measure_peak": "runtime",
    "next_power_of_2": "runtime.launch",
    "pack": "runtime",
    "parse": "lang",
    "pointers": "runtime.pointers",
    "reduce_axis": "lang",
    "reference": "ir.reference",
    "replay": "schedule.replay",
    "tensor": "lang",
    "unpack": "runtime",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.graph import Network as Network
    from tilewright.graph import compile as compile
    from tilewright.hw import Machine as Machine
    from tilewright.hw import instruction as instruction
    from tilewright.hw import load_machine as load_machine
    from tilewright.ir.interpreter import interpret as interpret
    from tilewright.ir.reference import reference as reference
    from tilewright.ir.stmt import Kernel as Kernel
    from tilewright.lang import compute as compute
    from tilewright.lang import einsum as einsum
    from tilewright.lang import kernel as kernel
    from tilewright.lang import parse as parse
    from tilewright.lang import reduce_axis as reduce_axis
    from tilewright.lang import tensor as tensor
    from tilewright.mapping import find_mappings as find_mappings
    from tilewright.runtime import Module as Module
    from tilewright.runtime import build as build
    from tilewright.runtime import check as check
    from tilewright.runtime import export as export
    from tilewright.runtime import measure as measure
    from tilewright.runtime import measure_peak as measure_peak
    from tilewright.runtime import pack as pack
    from tilewright.runtime import unpack as unpack
    from tilewright.runtime.configurations import Config as Config
    from tilewright.runtime.configurations import autotune as autotune
    from tilewright.runtime.descriptors import TensorDescriptor as TensorDescriptor
    from tilewright.runtime.launch import cdiv as cdiv
    from tilewright.runtime.launch import jit as jit
    from tilewright.runtime.launch import next_power_of_2 as next_power_of_2
    from tilewright.runtime.pointers import pointers as pointers
    from tilewright.schedule.replay import replay as replay
    from tilewright.schedule.schedule import Schedule as Schedule
    from tilewright.space.default import default_schedule as default_schedule
    from tilewright.util.errors import TilewrightError as TilewrightError
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
