"""Networks: ONNX import, fusion into kernels, memory planning, compiled networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.graph.compiler import compile, compile_graph
    from tilewright.graph.importer import load
    from tilewright.graph.model import Graph
    from tilewright.graph.network import Network

_HOME = {"Graph": "model", "Network": "network", "compile": "compiler", "compile_graph": "compiler", "load": "importer"}

__all__ = ["Graph", "Network", "compile", "compile_graph", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
