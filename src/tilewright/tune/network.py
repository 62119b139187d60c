"""Tuning networks: one search for each distinct kernel, rounds divided among them by the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from tilewright.graph.compiler import prepare
from tilewright.graph.fusion import Fusion
from tilewright.graph.importer import load
from tilewright.graph.layout import Layouts
from tilewright.graph.loading import ModelSource
from tilewright.graph.model import Graph
from tilewright.hw import Machine
from tilewright.runtime.jobs import Executor
from tilewright.runtime.pool import default_threads
from tilewright.runtime.records import RecordStore
from tilewright.runtime.workers import Workers, require_measurable
from tilewright.space.rule import Rule
from tilewright.tune.authors import check_author
from tilewright.tune.budget import check_budget
from tilewright.tune.claim import warn_of_load
from tilewright.tune.results import NetworkProgress, NetworkTuning
from tilewright.tune.scheduler import PATIENCE, SCHEDULERS
from tilewright.tune.tuner import INTERRUPTED, Default, Limit, Stopwatch, Subject, Tuner
from tilewright.util.errors import ImportFailure, TuneError

#: Trials for each distinct kernel, on average, when no budget is given.
TRIALS = 64


@dataclass(frozen=True, slots=True)
class Model:
    """A network to tune: its source, what binds its open dimensions, and the latency (seconds of its kernels) that is enough (0: none)."""

    source: ModelSource
    goal: float = 0.0
    dims: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)


def tune_network(
    source: ModelSource,
    machine: Machine | None = None,
    *,
    records: RecordStore | str | PathLike[str],
    trials: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
    author: str = "xgb",
    seed: int = 0,
    goal: float = 0.0,
    patience: int = PATIENCE,
    executor: Executor | None = None,
    progress: Callable[[NetworkProgress], None] | None = None,
    rules: Sequence[Rule] | None = None,
    scheduler: str = "gradient",
) -> NetworkTuning:
    """Search schedules for the kernels of a model and compile it with the best.

    The budget is ``trials`` in all, ``seconds`` of wall clock, or both (default: 64 trials for each distinct kernel). Every
    trial goes to ``records``; trials found there count as done, so a killed session goes on when started again, and
    :func:`tilewright.graph.compile` uses the best of them later. ``goal`` is the latency (seconds) at which to stop.
    ``rules`` make the spaces (default: the built-in ones), ``scheduler`` divides the rounds among kernels
    (a name of :data:`tilewright.tune.scheduler.SCHEDULERS`). In the end the tuned network is compared with the default one as a whole
    (:mod:`tilewright.tune.verdict`), and what is not faster there is not used. Ctrl-C ends the search with the best so far.

    TuneError for an unknown scheduler or author, for a budget in which nothing can be measured, and for a network of which no kernel can
    be tuned: it says why. Where some cannot, the others are. RuntimeFailure, before anything is built, for a machine whose code this
    computer cannot run.
    """
    (found,) = tune_networks(
        [Model(source, goal, dims or {}, shapes or {}, constants or {})], machine, records=records, trials=trials, seconds=seconds,
        threads=threads, fusion=fusion, layouts=layouts, author=author, seed=seed, patience=patience, executor=executor,
        progress=progress, rules=rules, scheduler=scheduler,
    )  # fmt: skip
    return found


def tune_networks(
    models: Sequence[Model],
    machine: Machine | None = None,
    *,
    records: RecordStore | str | PathLike[str],
    trials: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
    author: str = "xgb",
    seed: int = 0,
    patience: int = PATIENCE,
    executor: Executor | None = None,
    progress: Callable[[NetworkProgress], None] | None = None,
    rules: Sequence[Rule] | None = None,
    scheduler: str = "gradient",
) -> tuple[NetworkTuning, ...]:
    """As :func:`tune_network`, for several networks within one budget and one session; results in the order of ``models``.

    A kernel that several of them call is searched once. Rounds go where the sum of the latencies falls fastest; a network that has
    reached its goal gets no more, and what it shares with others only for their sake. Progress is that of one run of each.
    """
    if not models:
        raise TuneError("there is no network to tune", hint="give one model or more")
    if scheduler not in SCHEDULERS:
        raise TuneError(f"there is no scheduler {scheduler!r}", hint=f"there are: {', '.join(SCHEDULERS)}")
    check_budget(trials, seconds)
    check_author(author)
    clock = Stopwatch()
    machine = machine or Machine.host()
    threads = threads or default_threads()
    graphs = [_graph(m, f"network {n} of {len(models)}: " if len(models) > 1 else "") for n, m in enumerate(models, 1)]
    with ExitStack() as stack:
        store = records if isinstance(records, RecordStore) else stack.enter_context(RecordStore(Path(records)))
        workers = executor if executor is not None else stack.enter_context(Workers())
        if isinstance(workers, Workers):
            require_measurable(machine, threads)
        prepared = [prepare(g, machine, threads=threads, fusion=fusion, layouts=layouts) for g in graphs]
        # Candidates measured elsewhere say nothing about the network here.
        defaults = [Default.of(p) if isinstance(workers, Workers) else None for p in prepared]
        subjects = [Subject(p, default, m.goal) for p, default, m in zip(prepared, defaults, models, strict=True)]
        tuner = Tuner(subjects, rules, workers, store, author, seed, clock)
        warn_of_load(max(workers.width, threads))
        session = tuner.open(" + ".join(g.name for g in graphs), trials, seconds)
        allowed = trials if trials is not None or seconds is not None else TRIALS * len(tuner.kernels)
        state = "failed"
        try:
            reason = tuner.run(Limit(allowed, seconds), SCHEDULERS[scheduler], patience, progress)
            judged, finished = tuner.judged(reason != INTERRUPTED)
            reason = reason if finished else INTERRUPTED
            state = "done" if finished else "stopped"
        finally:
            tuner.close(state)
        return tuple(
            NetworkTuning(network, tuple(tuner.results(n)), session, tuner.elapsed(), tuner.ended(n, reason), verdict, tuner.skipped(n))
            for n, (network, verdict) in enumerate(judged)
        )


def _graph(model: Model, which: str) -> Graph:
    try:
        return load(model.source, dims=model.dims, shapes=model.shapes, constants=model.constants)
    except ImportFailure as error:
        raise type(error)(f"{which}{error.message}", hint=error.hint, location=error.location) from error
