"""Compiled networks: groups become kernels, kernels run over one planned arena."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.graph.elements import storage_array, user_array
from tilewright.graph.fusion import Fusion, FusionPlan, fuse, visible
from tilewright.graph.kernels import KernelCall, arithmetic_operations, group_kernel
from tilewright.graph.memory import MemoryPlan, plan_memory
from tilewright.graph.model import Graph, Value
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Kernel
from tilewright.runtime.memory import aligned_empty
from tilewright.util.errors import IRTypeError, RuntimeFailure

if TYPE_CHECKING:
    from tilewright.runtime.module import Module

Inputs = Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray
#: Runs a kernel on the arrays of its arguments, which it updates in place; the named arguments are constants of the network.
Execute = Callable[[Kernel, list[np.ndarray], frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call of the network: the operations it computes and the buffers it touches."""

    operators: tuple[str, ...]
    call: KernelCall


def plan_steps(graph: Graph, groups: Iterable[Sequence[int]] | None = None) -> list[Step]:
    """The kernel calls of ``graph``, one for each of ``groups`` (default: as greedy fusion makes them)."""
    consumers = graph.consumers()
    kept = {graph.storage(v.buffer.name) for v in graph.outputs}
    steps = []
    for members in fuse(graph).groups if groups is None else groups:
        operations = [graph.operations[i] for i in members]
        call = group_kernel(operations, graph.buffers, visible(graph, members, consumers, kept))
        steps.append(Step(tuple(op.kind for op in operations), call))
    return steps


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel as it was built: ``trace`` says what the schedule chose, or ``note`` why it runs as written."""

    module: Module
    trace: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of :meth:`Network.summary`; ``flops`` are arithmetic operations of one call."""

    operators: str
    kernel: str
    schedule: str
    flops: int
    seconds: float | None = None


class Network:
    """A compiled network, called with arrays by name, in input order, or one array for one input.

    ``network(inputs)`` returns the outputs by name. Calls from several threads take turns. Without
    ``compiled`` kernels (one for each step) only :meth:`reference` can run.
    """

    def __init__(
        self,
        graph: Graph,
        steps: Sequence[Step],
        compiled: Sequence[CompiledKernel] = (),
        *,
        threads: int | None = None,
        fusion: FusionPlan | None = None,
    ):
        self.graph = graph
        self.fusion = fusion
        self.steps = tuple(steps)
        self.compiled = tuple(compiled)
        self._arrays = frozenset(self._external())
        self._turn = threading.Lock()  # results in the arena are copied before the next run
        self.memory: MemoryPlan = plan_memory(graph, [s.call.arguments for s in steps], [s.call.writes for s in steps], self._arrays)
        self._sequence = self._assemble(threads) if compiled or not steps else None

    @classmethod
    def interpreted(cls, graph: Graph, *, fusion: Fusion = "greedy") -> Network:
        """A network that only :meth:`reference` can run: nothing is scheduled or compiled."""
        plan = fuse(graph, fusion)
        return cls(graph, plan_steps(graph, plan.groups), fusion=plan)

    @property
    def input_names(self) -> list[str]:
        """What :meth:`__call__` takes, in the order of the model."""
        return [v.name for v in self.graph.inputs]

    @property
    def output_names(self) -> list[str]:
        """What it gives, in the order of the model."""
        return [v.name for v in self.graph.outputs]

    def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Outputs by name, in new arrays. RuntimeFailure says which input does not fit and what is expected."""
        if self._sequence is None:
            raise RuntimeFailure(f"network {self.graph.name!r} was not compiled", hint="use tilewright.graph.compile, or Network.reference")
        values = self._bound(inputs)
        for v in self.graph.outputs:
            storage = self.graph.storage(v.buffer.name)
            if storage in self._arrays:
                b = self.graph.buffers[storage]
                values[storage] = aligned_empty(b.static_shape, b.dtype.to_numpy())
        arrays = {n: values[self.graph.storage(n)].reshape(self.graph.buffers[n].static_shape) for n in self._arrays}
        with self._turn:
            self._sequence.run(**arrays)
            for v in self.graph.outputs:
                if (storage := self.graph.storage(v.buffer.name)) not in values:
                    values[storage] = self._sequence.value(storage).copy()
        return {v.name: self._result(values[self.graph.storage(v.buffer.name)], v.buffer.name) for v in self.graph.outputs}

    def summary(self, *, repeats: int = 0) -> list[Row]:
        """One row for each kernel call; with ``repeats`` > 0, after a run, each with its measured mean time."""
        times = self.times(repeats) if repeats and self._sequence is not None else ()
        rows = []
        for k, step in enumerate(self.steps):
            made = self.compiled[k] if self.compiled else None
            text = "" if made is None else made.note or made.trace
            rows.append(
                Row(
                    "+".join(step.operators),
                    step.call.kernel.name,
                    text,
                    arithmetic_operations(step.call.kernel),
                    times[k] if times else None,
                )
            )
        return rows

    def times(self, repeats: int = 1) -> tuple[float, ...]:
        """Seconds of each kernel call, in order: means over ``repeats`` runs on the inputs of the last call."""
        if self._sequence is None:
            raise RuntimeFailure(f"network {self.graph.name!r} was not compiled", hint="use tilewright.graph.compile")
        return tuple(t.seconds for t in self._sequence.profile(repeats))

    def _external(self) -> list[str]:
        """Values that are the caller's arrays: inputs, views of inputs, and outputs of which no step uses a view."""
        used = dict.fromkeys(n for s in self.steps for n in s.call.arguments)
        viewed = {self.graph.storage(n) for n in used if n in self.graph.views}
        ends = {v.buffer.name for v in self.graph.inputs} | ({self.graph.storage(v.buffer.name) for v in self.graph.outputs} - viewed)
        return [n for n in used if self.graph.storage(n) in ends]

    def _assemble(self, threads: int | None) -> Any:
        """The native sequence: addresses planned, constants packed as the kernels want them."""
        from tilewright.runtime import sequence as native
        from tilewright.runtime.packing import pack

        plan: dict[str, int] = {}
        constants: dict[str, np.ndarray] = {}
        steps = []
        for step, made in zip(self.steps, self.compiled, strict=True):
            names = []
            for name, argument in zip(step.call.arguments, made.module.kernel.args, strict=True):
                storage = self.graph.storage(name)
                if storage in self.graph.constants:
                    array = self.graph.constants[storage].reshape(argument.static_shape)
                    layout = argument.layout
                    name = f"{name} in {layout}" if layout else name
                    if name not in constants:
                        constants[name] = pack(array, layout) if layout else array
                elif name not in self._arrays:
                    plan[name] = self.memory.offsets[storage]
                names.append(name)
            steps.append(native.Step(made.module, tuple(names), label="+".join(step.operators)))
        return native.Sequence(steps, plan, self.memory.size, constants=constants, external=sorted(self._arrays), threads=threads)

    def reference(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Outputs by name, computed by the reference semantics of every kernel (slow, exact order)."""
        from tilewright.ir.reference import reference

        return self.executed(inputs, lambda kernel, arrays, _: reference(kernel, arrays))

    def executed(self, inputs: Inputs, execute: Execute) -> dict[str, np.ndarray]:
        """Outputs by name; ``execute`` runs the kernels in order, on the arrays of their arguments in logical order.

        So a network runs on a simulated accelerator: with ``tilewright.sim.gemmini.offload.Offload(machine)`` for example.
        """
        values: dict[str, np.ndarray] = dict(self.graph.constants)
        values.update(self._bound(inputs))
        for step in self.steps:
            arrays = []
            for name in step.call.arguments:
                b = self.graph.buffers[name]
                storage = self.graph.storage(name)
                if storage not in values:
                    values[storage] = np.zeros(self.graph.buffers[storage].static_shape, b.dtype.to_numpy())
                arrays.append(values[storage].reshape(b.static_shape))
            execute(step.call.kernel, arrays, self.constants(step))
        return {v.name: self._result(values[self.graph.storage(v.buffer.name)], v.buffer.name) for v in self.graph.outputs}

    def constants(self, step: Step) -> frozenset[str]:
        """The arguments of the kernel of ``step`` whose contents are known ahead of time."""
        return step.call.constants(self.graph)

    def _result(self, stored: np.ndarray, name: str) -> np.ndarray:
        b = self.graph.buffers[name]
        return user_array(stored.reshape(b.static_shape), b.dtype)

    def _bound(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Input arrays in storage form by buffer name; RuntimeFailure for what does not fit."""
        return {v.buffer.name: _checked(v.name, a, v.buffer) for v, a in self._matched(inputs)}

    def _matched(self, inputs: Inputs) -> list[tuple[Value, np.ndarray]]:
        values = self.graph.inputs
        if isinstance(inputs, Mapping):
            missing = [v.name for v in values if v.name not in inputs]
            unknown = [n for n in inputs if n not in {v.name for v in values}]
            if missing or unknown:
                parts = ([f"missing {', '.join(missing)}"] if missing else []) + (
                    [f"unknown {', '.join(map(str, unknown))}"] if unknown else []
                )
                raise RuntimeFailure(
                    f"network {self.graph.name!r}: inputs do not fit: {'; '.join(parts)}",
                    hint=f"it takes: {', '.join(map(_described, values)) or 'nothing'}",
                )
            return [(v, inputs[v.name]) for v in values]
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(given) != len(values):
            raise RuntimeFailure(
                f"network {self.graph.name!r} takes {len(values)} inputs, got {len(given)}",
                hint=f"inputs: {', '.join(map(_described, values)) or 'none'}",
            )
        return list(zip(values, given, strict=True))


def _described(v: Value) -> str:
    return f"{v.name}: {v.buffer.dtype}{list(v.buffer.static_shape)}"


def _checked(name: str, array: np.ndarray, b: Buffer) -> np.ndarray:
    given = np.asarray(array)
    try:
        stored, dtype = storage_array(given)
    except IRTypeError as error:
        raise RuntimeFailure(
            f"input {name!r} is no array of numbers: {error.message}", hint=f"expected {b.dtype}{list(b.static_shape)}"
        ) from error
    if dtype != b.dtype:
        raise RuntimeFailure(
            f"input {name!r} has element type {dtype}, expected {b.dtype}", hint=f"convert it: x.astype({b.dtype.to_numpy()!s})"
        )
    if stored.shape != b.static_shape:
        raise RuntimeFailure(
            f"input {name!r} has shape {list(stored.shape)}, expected {list(b.static_shape)}",
            hint="other shapes need another compile (dims=, shapes=)",
        )
    return stored
