"""From a model to a compiled network: import, fuse, schedule every distinct kernel, build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tilewright.graph.fusion import Fusion, fuse
from tilewright.graph.importer import load
from tilewright.graph.layout import choose_layouts
from tilewright.graph.loading import ModelSource
from tilewright.graph.model import Graph
from tilewright.graph.network import CompiledKernel, Network, Step, plan_steps
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.module import build
from tilewright.runtime.pool import default_threads
from tilewright.space.default import plan
from tilewright.util.errors import ScheduleError

#: Called with (kernels done, kernels in all, name of the one just compiled).
Progress = Callable[[int, int, str], None]


def compile(
    source: ModelSource,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    fusion: Fusion = "greedy",
    cache: bool = True,
    progress: Progress | None = None,
) -> Network:
    """Compile an ONNX model (path, bytes or ModelProto) for ``machine`` (default: this host).

    ``dims``, ``shapes`` and ``constants`` bind what the model leaves open (see
    :func:`tilewright.graph.importer.load`, also for the errors). ``threads`` is fixed now;
    ``fusion`` says how operations are divided into kernels (:data:`tilewright.graph.fusion.Fusion`);
    ``cache=False`` compiles everything afresh.
    """
    graph = load(source, dims=dims, shapes=shapes, constants=constants)
    return compile_graph(graph, machine, threads=threads, fusion=fusion, cache=cache, progress=progress)


def compile_graph(
    graph: Graph,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    fusion: Fusion = "greedy",
    cache: bool = True,
    progress: Progress | None = None,
) -> Network:
    """Schedule and build every kernel of ``graph``, equal kernels once."""
    machine = machine or Machine.host()
    threads = threads or default_threads()
    graph = choose_layouts(graph, machine)
    division = fuse(graph, fusion, machine=machine, threads=threads)
    steps = plan_steps(graph, division.groups)
    wanted = [(s.call.kernel, _constant_arguments(graph, s)) for s in steps]
    made: dict[tuple[Kernel, frozenset[str]], CompiledKernel] = {}
    distinct = list(dict.fromkeys(wanted))
    for number, key in enumerate(distinct, 1):
        made[key] = _compiled(*key, machine, threads, cache)
        if progress:
            progress(number, len(distinct), key[0].name)
    return Network(graph, steps, [made[key] for key in wanted], threads=threads, fusion=division)


def _constant_arguments(graph: Graph, step: Step) -> frozenset[str]:
    """Kernel arguments whose contents are known now: their layout is free to choose."""
    pairs = zip(step.call.kernel.args, step.call.arguments, strict=True)
    return frozenset(b.name for b, name in pairs if graph.storage(name) in graph.constants)


def _compiled(kernel: Kernel, constants: frozenset[str], machine: Machine, threads: int, cache: bool) -> CompiledKernel:
    try:
        chosen = plan(kernel, machine, threads=threads, constants=constants)
    except ScheduleError as error:
        # Some programs (data-dependent stores, recurrences) are outside what the rules know: they run as written.
        return CompiledKernel(build(kernel, machine, threads=threads, cache=cache), note=f"unscheduled: {error.message}")
    text = "; ".join(map(str, chosen.decisions)) or "vectorised along memory"
    return CompiledKernel(build(chosen.schedule.kernel, machine, threads=threads, cache=cache), trace=text)
