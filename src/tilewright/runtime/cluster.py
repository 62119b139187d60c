"""Candidates on other computers: an executor on a Dask cluster.

The scheduler and the workers' life are Dask's; what a worker does with a job is what
:class:`~tilewright.runtime.workers.Workers` does on this computer. Jobs go only to workers that
have offered the job's machine, in bundles as large as the worker can build at once. When a worker is
lost, the jobs it had are done by others; a job that loses every worker it is given to is a crash.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tilewright.hw.load import load_machine
from tilewright.hw.machine import Machine
from tilewright.runtime.jobs import Done, Job, Limits, Outcome
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.records.task import machine_key
from tilewright.util.errors import RuntimeFailure, TilewrightError

if TYPE_CHECKING:
    from distributed import Client, Future

#: Bundles a worker is given beforehand, so that it need not wait for us between two of them.
AHEAD = 2
#: Seconds between looks at which workers there are.
LOOK = 0.5


@dataclass(frozen=True, slots=True)
class ClusterWorker:
    """A worker that has joined: where it listens, the keys of the machines it offers, its processors."""

    address: str
    machines: frozenset[str]
    processors: int


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a job asks of a worker: a machine, and processors for its threads."""

    machine: str
    threads: int

    def met_by(self, worker: ClusterWorker) -> bool:
        return self.machine in worker.machines and worker.processors >= self.threads


class Cluster:
    """An :class:`~tilewright.runtime.jobs.Executor` on the Dask cluster whose scheduler is at ``address``.

    Without an address a scheduler and ``workers`` worker processes are started here, each confined to
    its share of the processors, and ended by :meth:`close`. ``patience`` is how long (seconds) jobs wait for
    a worker that can do them before that is an error; what was done until then has been reported.
    RuntimeFailure when Dask is not installed, nothing answers at ``address``, or a worker has other
    versions than this process.
    """

    def __init__(self, address: str | None = None, *, workers: int = 1, limits: Limits | None = None, patience: float = 60.0):
        distributed = _distributed()
        self.limits = limits or Limits()
        self.patience = patience
        self._local = _LocalCluster(workers) if address is None else None
        self.address: str = address or self._local.address  # type: ignore[union-attr]
        try:
            # A client of what is no address would wait for itself when it is collected.
            distributed.comm.resolve_address(distributed.comm.normalize_address(self.address))
            self._client: Client = distributed.Client(self.address, timeout=min(patience, 20.0), set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise RuntimeFailure(
                f"no Dask scheduler answers at {self.address}", hint="start one with `dask scheduler` and give its address, tcp://HOST:8786"
            ) from error
        try:
            if self._local is not None:
                self._client.wait_for_workers(workers, timeout=patience)
            self._check_versions()
        except BaseException:
            self.close()
            raise

    @property
    def width(self) -> int:
        """Builds that run at once on all workers together."""
        return max(1, sum(w.processors for w in self.workers()))

    def workers(self) -> list[ClusterWorker]:
        """The workers that are there now."""
        from tilewright.runtime.cluster_worker import PROCESSORS

        with self._talking():
            found = self._client.scheduler_info(n_workers=-1).get("workers")
            if found is None:  # what the client answers while it notices that the connection is gone
                raise OSError("the scheduler says nothing of its workers")
        return [
            ClusterWorker(address, frozenset(k for k in w["resources"] if k != PROCESSORS), int(w["resources"].get(PROCESSORS, 1)))
            for address, w in found.items()
        ]

    def local_processes(self) -> list[int]:
        """Process ids of the workers that were started here."""
        return [p.pid for p in self._local.processes] if self._local is not None else []

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        """Outcomes in the order of ``jobs``; ``done`` hears of each when its worker has sent it."""
        from tilewright.runtime.cluster_worker import run_jobs

        outcomes: dict[int, Outcome] = {}

        def finish(bundle: Sequence[int], found: Sequence[Outcome]) -> None:
            for index, outcome in zip(bundle, found, strict=True):
                outcomes[index] = outcome
                if done is not None:
                    done(index, outcome)

        by_needs: dict[_Needs, list[int]] = {}
        for index, job in enumerate(jobs):
            by_needs.setdefault(_needs(job), []).append(index)
        for needs, indices in by_needs.items():
            _Round(self, needs, jobs, run_jobs).run(indices, finish)
        return [outcomes[n] for n in range(len(jobs))]

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        """Verify ``jobs`` (of one kernel, for one machine) and time them in turns, all on the same worker."""
        from tilewright.runtime.cluster_worker import compare_jobs

        if not jobs:
            return []
        answer: list[Outcome] = []
        together = _Round(self, _needs(jobs[0]), jobs, compare_jobs, (rounds,), divisible=False)
        together.run(range(len(jobs)), lambda _, found: answer.extend(found))
        return answer

    def close(self) -> None:
        """Leave the cluster, and end it if it was started for us. Idempotent."""
        if client := getattr(self, "_client", None):
            client.close(timeout=5)
        if self._local is not None:
            self._local.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, function: Callable[..., list[Outcome]], needs: _Needs, jobs: Sequence[Job], *arguments: Any) -> Future:
        """Have a worker that meets ``needs`` do ``jobs``; it does nothing else meanwhile."""
        from tilewright.runtime.cluster_worker import PROCESSORS, identity

        try:
            blob = pickle.dumps(list(jobs), pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RuntimeFailure(
                f"a job cannot be sent to another computer: {error}",
                hint="recipes, rules and machines are sent by name: define them in a module that the workers have too",
            ) from error
        wanted = {needs.machine: 1, PROCESSORS: needs.threads}
        return self._client.submit(function, identity(), self.limits, blob, *arguments, resources=wanted, pure=False)

    def ready(self, futures: Iterable[Future]) -> set[Future]:
        """Those of ``futures`` that have ended, waiting a moment for the first."""
        from distributed import wait

        if not (pending := list(futures)):
            time.sleep(LOOK)
            return set()
        with self._talking(), self._client.as_current():
            try:
                ended: set[Future] = wait(pending, timeout=LOOK, return_when="FIRST_COMPLETED").done
                return ended
            except TimeoutError:
                return set()

    def result(self, future: Future) -> list[Outcome]:
        """What a worker answered; _WorkersLost when all that were asked died."""
        from distributed import KilledWorker

        with self._talking():
            try:
                outcomes: list[Outcome] = future.result()
                return outcomes
            except KilledWorker as error:
                raise _WorkersLost(str(error)) from error

    def cancel(self, futures: Iterable[Future]) -> None:
        """Forget jobs that nobody waits for any more."""
        with suppress(RuntimeFailure), self._talking():
            self._client.cancel(list(futures), force=True)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Errors of the connection, and of workers that are not like us, in words."""
        try:
            yield
        except (TilewrightError, _WorkersLost):
            raise
        except (CancelledError, OSError) as error:
            raise RuntimeFailure(f"the scheduler {self.address} was lost", hint="start it again, then resume the session") from error
        except Exception as error:  # whatever a worker of another installation makes of our message
            raise RuntimeFailure(
                f"{self.address} cannot do the job: {_what(error)}", hint="tilewright doctor, on the computers of its workers"
            ) from error

    def _check_versions(self) -> None:
        from tilewright.runtime.cluster_worker import identity

        mine = identity()
        others = self._client.run(identity, on_error="return")
        if wrong := {address: other for address, other in others.items() if other != mine}:
            listed = "; ".join(f"{address} has {_what(other)}" for address, other in wrong.items())
            raise RuntimeFailure(
                f"workers of {self.address} do not fit this tuner ({mine}): {listed}", hint="install the same versions and start them again"
            )


def open_cluster(where: str, limits: Limits | None = None) -> Cluster:
    """The cluster a command line names: a scheduler's address, ``local``, or ``local:N`` for N workers here."""
    kind, _, count = where.partition(":")
    if kind != "local":
        return Cluster(where, limits=limits)
    if count and not count.isdigit():
        raise RuntimeFailure(f"{where!r} names no cluster", hint="tcp://HOST:8786, local, or local:2")
    return Cluster(workers=int(count or 1), limits=limits)


class _WorkersLost(Exception):
    """Jobs were given to several workers, and all of them died."""


class _Round:
    """Jobs of equal needs on their way through the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        needs: _Needs,
        jobs: Sequence[Job],
        function: Callable[..., list[Outcome]],
        arguments: tuple[Any, ...] = (),
        divisible: bool = True,
    ):
        self.cluster = cluster
        self.needs = needs
        self.jobs = jobs
        self.function = function
        self.arguments = arguments
        self.divisible = divisible
        self.flying: dict[Future, tuple[list[int], bool]] = {}  # bundles under way, and whether nothing else was
        self.seen = time.monotonic()  # when a worker that meets the needs was last there

    def run(self, indices: Sequence[int], finish: Callable[[Sequence[int], Sequence[Outcome]], None]) -> None:
        """Do the jobs ``indices``; ``finish`` gets each bundle with its outcomes."""
        waiting, suspects = self._bundles(indices), deque[int]()
        try:
            while waiting or self.flying or suspects:
                able = self._able()
                while waiting and len(self.flying) < AHEAD * able:
                    self._send(waiting.popleft())
                # A lost worker takes all it was given with it. So those it had are tried again with nobody to blame beside them.
                if able and not self.flying:
                    self._send([suspects.popleft()], alone=True)
                for future in self.cluster.ready(self.flying):
                    bundle, alone = self.flying.pop(future)
                    try:
                        finish(bundle, self.cluster.result(future))
                    except _WorkersLost as lost:
                        if alone or not self.divisible:
                            finish(bundle, [Outcome("crash", message=f"every worker that ran it was lost: {lost}")] * len(bundle))
                        else:
                            suspects.extend(bundle)
        finally:
            if self.flying:
                self.cluster.cancel(self.flying)

    def _send(self, bundle: list[int], alone: bool = False) -> None:
        jobs = [self.jobs[n] for n in bundle]
        self.flying[self.cluster.submit(self.function, self.needs, jobs, *self.arguments)] = (bundle, alone)

    def _bundles(self, indices: Sequence[int]) -> deque[list[int]]:
        """The jobs in bundles: as many as a worker builds at once, fewer when that would leave others idle."""
        if not self.divisible:
            return deque([list(indices)])
        able = [w.processors for w in self.cluster.workers() if self.needs.met_by(w)]
        size = max(1, min([*able, -(-len(indices) // max(len(able), 1))]))
        return deque([list(indices[n : n + size]) for n in range(0, len(indices), size)])

    def _able(self) -> int:
        """Workers that can do the jobs now; RuntimeFailure when there have been none for too long."""
        count = sum(map(self.needs.met_by, self.cluster.workers()))
        if count:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > self.cluster.patience:
            there = "; ".join(f"{w.address}: {', '.join(sorted(w.machines))}, {w.processors} processors" for w in self.cluster.workers())
            raise RuntimeFailure(
                f"no worker of {self.cluster.address} has the machine {self.needs.machine} and {self.needs.threads} processors; "
                f"workers there: {there or 'none'}",
                hint=f"start one: tilewright worker {self.cluster.address}",
            )
        return count


def _scheduler(attempts: int = 2) -> Any:
    """A scheduler without workers in this process.

    Distributed asserts that the thread of its event loop runs after ten seconds, which a busy computer may not manage at once.
    """
    from distributed import LocalCluster

    for _ in range(attempts):
        try:
            return LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR)
        except AssertionError:
            continue
    raise RuntimeFailure(
        "the scheduler of a local cluster did not start",
        hint="the computer is too busy; or start one with `dask scheduler` and give its address",
    )


class _LocalCluster:
    """A scheduler in this process and workers beside it, on loopback."""

    def __init__(self, workers: int):
        cpus = available_cpus()
        if not 1 <= workers <= len(cpus):
            raise RuntimeFailure(
                f"a local cluster of {workers} workers on {len(cpus)} processors", hint="each needs a processor of its own"
            )
        self._cluster = _scheduler()
        self.address = str(self._cluster.scheduler_address)
        share = len(cpus) // workers
        self.processes = [self._start(cpus[n * share : (n + 1) * share]) for n in range(workers)]

    def _start(self, cpus: Sequence[int]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tilewright.runtime.cluster_worker", self.address, "--no-restart"]
        return subprocess.Popen(
            [*command, "--cpus", ",".join(map(str, cpus))], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._cluster.close(timeout=5)


def _needs(job: Job) -> _Needs:
    machine = job.machine if isinstance(job.machine, Machine) else load_machine(job.machine)
    return _Needs(machine_key(machine), job.threads)


def _what(error: Any) -> str:
    return error if isinstance(error, str) else f"{type(error).__name__}: {error}"


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise RuntimeFailure("Dask is not installed", hint="pip install 'tilewright[cluster]'") from error
    return distributed
