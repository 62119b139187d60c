"""From a model to a compiled network: import, fuse, schedule every distinct kernel, build."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tilewright.codegen.commands import has_words
from tilewright.graph.fusion import Fusion, FusionPlan, fuse
from tilewright.graph.importer import load
from tilewright.graph.layout import Layouts, choose_layouts
from tilewright.graph.loading import ModelSource
from tilewright.graph.model import Graph
from tilewright.graph.movement import compose_movements
from tilewright.graph.network import CompiledKernel, Network, Step, plan_steps
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.module import Module, build
from tilewright.runtime.planned import planned
from tilewright.runtime.pool import default_threads
from tilewright.runtime.target import of_machine
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import RuntimeFailure, ScheduleError, SpaceError, TilewrightError
from tilewright.util.quantities import seconds_text

if TYPE_CHECKING:
    from tilewright.runtime.records import Record, RecordStore, Task

#: Recorded schedules that are tried, best first, when the best cannot be made by this version.
ALTERNATIVES = 8
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
    layouts: Layouts = "channels-last",
    records: RecordStore | str | PathLike[str] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Network:
    """Compile an ONNX model (path, bytes or ModelProto) for ``machine`` (default: this host).

    ``dims``, ``shapes`` and ``constants`` bind what the model leaves open (see
    :func:`tilewright.graph.importer.load`, also for the errors). ``threads`` is fixed now;
    ``fusion`` says how operations are divided into kernels (:data:`tilewright.graph.fusion.Fusion`), ``layouts`` how values
    between them lie in memory (:data:`tilewright.graph.layout.Layouts`);
    kernels with tuning ``records`` get the best schedule recorded for this machine and number of threads;
    ``cache=False`` compiles everything afresh.
    """
    graph = load(source, dims=dims, shapes=shapes, constants=constants)
    return compile_graph(graph, machine, threads=threads, fusion=fusion, layouts=layouts, records=records, cache=cache, progress=progress)


def compile_graph(
    graph: Graph,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
    records: RecordStore | str | PathLike[str] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Network:
    """Schedule and build every kernel of ``graph``, equal kernels once."""
    prepared = prepare(graph, machine, threads=threads, fusion=fusion, layouts=layouts)
    return prepared.compile(records=records, cache=cache, progress=progress)


class Recorded(Protocol):
    """What knows schedules of tasks: a RecordStore, or a tuner that could not write all of its records."""

    def ranked(self, task: Task) -> Iterable[Record]:
        """Records of the task, the best first, one for each schedule."""


@dataclass(frozen=True, slots=True)
class KernelTask:
    """A distinct kernel of a network; the layouts of the arguments in ``constants`` are free to choose.

    Those in ``unaligned`` are the caller's arrays: inputs of the network. All others begin at cache lines.
    """

    kernel: Kernel
    constants: frozenset[str]
    unaligned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network divided into kernels, of which none is scheduled yet."""

    graph: Graph
    fusion: FusionPlan
    steps: tuple[Step, ...]
    machine: Machine
    threads: int

    def task(self, step: Step) -> KernelTask:
        """The kernel of ``step`` as something to schedule."""
        inputs = {self.graph.storage(v.buffer.name) for v in self.graph.inputs}
        places = {b.name: self.graph.storage(name) for b, name in zip(step.call.kernel.args, step.call.arguments, strict=True)}
        constants = frozenset(name for name, storage in places.items() if storage in self.graph.constants)
        return KernelTask(step.call.kernel, constants, frozenset(name for name, storage in places.items() if storage in inputs))

    def compile(
        self, *, records: Recorded | str | PathLike[str] | None = None, cache: bool = True, progress: Progress | None = None
    ) -> Network:
        """Schedule and build every distinct kernel: as recorded where ``records`` know it, by the default rules elsewhere."""
        _check_runs_here(self.machine)
        wanted = [self.task(s) for s in self.steps]
        made: dict[KernelTask, CompiledKernel] = {}
        distinct = list(dict.fromkeys(wanted))
        with ExitStack() as stack:
            store = _opened(records, stack)
            for number, task in enumerate(distinct, 1):
                made[task] = self._recorded(task, store, cache) or self._default(task, cache)
                if progress:
                    progress(number, len(distinct), task.kernel.name)
        return Network(self.graph, self.steps, [made[t] for t in wanted], threads=self.threads, fusion=self.fusion)

    def _default(self, task: KernelTask, cache: bool) -> CompiledKernel:
        try:
            chosen = planned(task.kernel, self.machine, threads=self.threads, constants=task.constants, cache=cache)
        except (ScheduleError, SpaceError) as error:
            # Some programs (data-dependent stores, recurrences) are outside what the rules know: they run as written.
            return CompiledKernel(self._built(task.kernel, cache), note=f"unscheduled: {error.message}")
        text = "; ".join(map(str, chosen.decisions)) or "vectorised along memory"
        return CompiledKernel(self._built(chosen.kernel, cache), trace=text)

    def _recorded(self, task: KernelTask, records: Recorded | None, cache: bool) -> CompiledKernel | None:
        """The kernel with the best recorded schedule; None when nothing that still applies is recorded."""
        from tilewright.runtime.records import Task

        if records is None:
            return None
        known = Task.of(task.kernel, self.machine, self.threads, task.constants, task.unaligned)
        for found in islice(records.ranked(known), ALTERNATIVES):
            default_won = found.against == found.uid  # then it does as it is today, should its steps be lost
            if not found.trace or found.seconds is None:
                if default_won:
                    return None
                continue
            try:
                schedule = _replayed(task.kernel, found.trace, self.machine)
            except (ScheduleError, SpaceError) as error:
                _warn_of_stale(found, error)
                if default_won:
                    return None
                continue
            if default_won or found.role == "baseline":
                text = f"as without tuning: {seconds_text(found.seconds)}"
            else:
                doubt = "" if found.winner else ", not confirmed"
                text = f"tuned: {seconds_text(found.seconds)} by {found.author or 'hand'}{doubt}"
            return CompiledKernel(self._built(schedule.kernel, cache), trace=text)
        return None

    def _built(self, kernel: Kernel, cache: bool) -> Module:
        return build(kernel, self.machine, threads=self.threads, cache=cache)


def prepare(
    graph: Graph,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
) -> Prepared:
    """Choose layouts and divide ``graph`` into kernels."""
    machine = machine or Machine.host()
    threads = threads or default_threads()
    graph = choose_layouts(compose_movements(graph), machine, layouts, threads=threads)
    division = fuse(graph, fusion, machine=machine, threads=threads)
    return Prepared(graph, division, tuple(plan_steps(graph, division.groups)), machine, threads)


def _check_runs_here(machine: Machine) -> None:
    """RuntimeFailure for an accelerator whose host this is not: there is another way to have a network on it."""
    if not has_words(machine):
        return
    try:
        of_machine(machine).require_host(f"a network for machine {machine.name}")
    except RuntimeFailure as failure:
        way_out = "divide it with tilewright.graph.offloading.offloaded, whose programs run on simulators (docs/commands.md)"
        raise RuntimeFailure(failure.message, hint=way_out) from failure


def _warn_of_stale(record: Record, error: TilewrightError) -> None:
    """Say that a record's schedule cannot be made any more, and what to do."""
    warnings.warn(
        f"record {record.uid[:10]} of {record.task} is passed over: {error.message}. It was made by Tilewright "
        f"{record.versions.get('tilewright', '?')}; the next best that is recorded is used, or the schedule without tuning. Tune again",
        RuntimeWarning,
        stacklevel=2,
    )


def _opened(records: Recorded | str | PathLike[str] | None, stack: ExitStack) -> Recorded | None:
    from tilewright.runtime.records import RecordStore

    return stack.enter_context(RecordStore(Path(records), readonly=True)) if isinstance(records, (str, PathLike)) else records


def _replayed(kernel: Kernel, trace: str, machine: Machine) -> Schedule:
    from tilewright.schedule.replay import replay
    from tilewright.schedule.trace import Trace

    return replay(kernel, Trace.from_json(trace), machine)
