"""Networks: ONNX import, fusion into kernels, memory planning, compiled networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {"Graph": "model", "Network": "network", "compile": "compiler", "compile_graph": "compiler", "load": "importer"}

__all__ = ["Graph", "Network", "compile", "compile_graph", "load"]

if TYPE_CHECKING:
    from tilewright.graph.compiler import compile, compile_graph
    from tilewright.graph.importer import load
    from tilewright.graph.model import Graph
    from tilewright.graph.network import Network
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
