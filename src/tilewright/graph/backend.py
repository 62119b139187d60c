"""The ONNX backend interface, so that ONNX's own conformance tests run against this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep

from tilewright.graph.compiler import compile_graph
from tilewright.graph.importer import load
from tilewright.graph.lowering import StaticOperandRequired
from tilewright.graph.network import Network
from tilewright.util.errors import ImportFailure


class PreparedModel(BackendRep):
    """A model that is compiled at the first run, when shapes of undeclared inputs are known.

    Inputs that decide shapes (``bound`` after a run) are fixed to the values of that run.
    """

    def __init__(self, model: ModelProto, *, native: bool = True):
        self._model = model
        self._native = native
        self.bound: tuple[str, ...] = ()

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in model order for ``inputs`` in model order."""
        given = {n: np.asarray(a) for n, a in zip(self._input_names(), inputs, strict=True)}
        network = self._compile(given)
        free = {n: given[n] for n in network.input_names}
        results = network(free) if self._native else network.reference(free)
        return tuple(results[n] for n in network.output_names)

    def _input_names(self) -> list[str]:
        initial = {t.name for t in self._model.graph.initializer}
        return [v.name for v in self._model.graph.input if v.name not in initial]

    def _compile(self, given: dict[str, np.ndarray]) -> Network:
        """Compile for these shapes, binding the inputs that turn out to decide shapes."""
        shapes = {n: a.shape for n, a in given.items()}
        fixed: dict[str, np.ndarray] = {}
        while True:
            try:
                graph = load(self._model, shapes=shapes, constants=fixed)
                break
            except StaticOperandRequired as need:
                more = need.sources - fixed.keys()
                if not more:
                    raise
                fixed.update({n: given[n] for n in more})
        self.bound = tuple(fixed)
        return compile_graph(graph) if self._native else Network.interpreted(graph)


class TilewrightBackend(Backend):
    """``onnx.backend.test.BackendTest(TilewrightBackend, __name__)`` runs the conformance tests on this CPU."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        return PreparedModel(model)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        arrays = [np.asarray(a) for a in inputs]
        values = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(node.input, arrays, strict=True)
        ]
        if not outputs_info:
            raise ImportFailure(f"run_node({node.op_type}) needs outputs_info", hint="pass (dtype, shape) of each output")
        results = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(d)), s)
            for n, (d, s) in zip(node.output, outputs_info, strict=True)
        ]
        model = helper.make_model(helper.make_graph([node], "node", values, results))
        return cls.run_model(model, arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"
