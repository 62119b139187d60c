"""Candidates in worker processes of this computer: builds in parallel, measurements one at a time.

Builders and the measurer are fresh interpreters (never forks of the caller, who may have threads).
While one candidate is measured no other is built: they would share caches, memory and clock.
A worker that dies is replaced and its job tried again once, so no job is lost; what a candidate
does to its worker is its outcome.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any, cast

from tilewright.hw.machine import Machine
from tilewright.runtime.jobs import STATUSES, Done, Executor, Job, Limits, Outcome, Recipe, Status
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.target import of_machine
from tilewright.util.errors import RuntimeFailure

__all__ = ["STATUSES", "Done", "Executor", "Job", "Limits", "Outcome", "Recipe", "Status", "Workers"]

#: How often a job is given to a worker that dies of it before the death is its outcome.
ATTEMPTS = 2
#: Seconds until a new worker has to be ready.
START = 120.0


@dataclass(slots=True)
class _Built:
    """A job on its way: what the builder said, and the code it sent."""

    outcome: Outcome
    blob: bytes | None


class Workers:
    """An :class:`Executor` on this computer.

    ``builders`` processes compile (default: one for each processor this process may use). Processes
    start when they are first needed; :meth:`close`, or leaving the ``with`` block, ends them. They
    also end when this process does, however it ends.
    """

    def __init__(self, builders: int | None = None, limits: Limits | None = None):
        count = len(available_cpus()) if builders is None else builders
        if count < 1:
            raise RuntimeFailure(f"{count} builders", hint="at least one process has to build")
        self.limits = limits or Limits()
        self._builders = [_Worker("build", self.limits) for _ in range(count)]
        self._measurer = _Worker("measure", self.limits)

    @property
    def width(self) -> int:
        """Builds that run at once."""
        return len(self._builders)

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        """Build ``jobs`` in parallel, then verify and time them one by one. ``done`` hears of each as soon as it is known."""
        for job in jobs:
            _check_threads(job.threads)
        outcomes: list[Outcome] = []
        try:
            for index, built in enumerate(self._build(jobs)):
                outcome = built.outcome
                if built.blob is not None:
                    ran = self._ask(("run", jobs[index], built.blob))
                    outcome = replace(ran, trace=outcome.trace, build_seconds=outcome.build_seconds)
                outcomes.append(outcome)
                if done is not None:
                    done(index, outcome)
        except BaseException:
            self._abandon()
            raise
        return outcomes

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        """Verify ``jobs`` (of one kernel) on fresh data and time them in turns.

        If one of them fails, those that hold on their own are compared.
        """
        for job in jobs:
            _check_threads(job.threads)
        try:
            return self._compare(jobs, rounds)
        except BaseException:
            self._abandon()
            raise

    def _compare(self, jobs: Sequence[Job], rounds: int) -> list[Outcome]:
        built = self._build(jobs)
        outcomes = [b.outcome for b in built]

        def together(chosen: list[int], rounds: int) -> list[tuple[float, ...]] | Outcome:
            answer = self._ask(("compare", [jobs[n] for n in chosen], [built[n].blob for n in chosen], rounds))
            return cast("list[tuple[float, ...]] | Outcome", answer)

        good = [n for n, b in enumerate(built) if b.blob is not None]
        samples = together(good, rounds) if good else []
        if isinstance(samples, Outcome):
            for n in good:
                if isinstance(alone := together([n], 1), Outcome):
                    outcomes[n] = alone
            good = [n for n in good if outcomes[n].ok]
            samples = together(good, rounds) if good else []
        for place, n in enumerate(good):
            outcomes[n] = samples if isinstance(samples, Outcome) else replace(outcomes[n], samples=tuple(samples[place]))
        return outcomes

    def close(self) -> None:
        """End all workers. Idempotent."""
        self._abandon()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def processes(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [w.process.pid for w in (*self._builders, self._measurer) if w.process is not None]

    def _build(self, jobs: Sequence[Job]) -> list[_Built]:
        """Code of every job, in their order."""
        waiting, tries = deque(range(len(jobs))), [0] * len(jobs)
        built: list[_Built | None] = [None] * len(jobs)
        busy: dict[Any, tuple[_Worker, int]] = {}
        while waiting or busy:
            for worker in self._builders:
                if waiting and worker not in [w for w, _ in busy.values()]:
                    index = waiting.popleft()
                    if worker.send(jobs[index]):
                        busy[worker.connection] = (worker, index)
                    else:
                        waiting.appendleft(index)
            for connection in wait(list(busy)):
                worker, index = busy.pop(connection)
                try:
                    blob, outcome, retire = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    tries[index] += 1
                    death = worker.death(self.limits.build)
                    if death.status == "timeout" or tries[index] == ATTEMPTS:
                        built[index] = _Built(replace(death, message=f"{death.message} while it was built"), None)
                    else:
                        waiting.append(index)
                    continue
                built[index] = _Built(outcome, blob)
                if retire:
                    worker.stop()
        return [b for b in built if b is not None]

    def _ask(self, request: tuple[Any, ...]) -> Any:
        """The measurer's answer. A candidate cannot end the measurer, only its own copy of it: whoever did gets a second answer."""
        for _ in range(ATTEMPTS):
            if not self._measurer.send(request):
                continue
            try:
                return self._measurer.connection.recv()
            except (EOFError, ConnectionResetError):
                death = self._measurer.death(self.limits.run)
        return replace(death, message=f"{death.message}: the measuring process itself")

    def _abandon(self) -> None:
        for worker in (*self._builders, self._measurer):
            worker.stop()


class _Worker:
    """One process of :mod:`tilewright.runtime.serve`, started when it is needed and again after it has died."""

    def __init__(self, kind: str, limits: Limits):
        self.kind = kind
        self.limits = limits
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection
        self._errors: Any = None

    def send(self, message: Any) -> bool:
        """Whether the message went out; False when the process has died since it was last used."""
        if self.process is None:
            self._start()
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self.stop()
            return False
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RuntimeFailure(
                f"a job cannot be sent to a worker process: {error}",
                hint="recipes, rules and machines are sent by name: define them in a module, and name a machine of a file by its path",
            ) from error
        return True

    def death(self, allowed: float) -> Outcome:
        """How the process ended, as an outcome."""
        from tilewright.runtime.serve import ended

        assert self.process is not None
        code = self.process.wait()
        outcome = ended(-code if code < 0 else code << 8, allowed)
        words = self._last_words()
        self.stop()
        return replace(outcome, message=f"{outcome.message} ({words})") if words else outcome

    def stop(self) -> None:
        """End the process, whatever it does."""
        process, self.process = self.process, None
        if process is None:
            return
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and the candidate it is running
        process.wait()
        self._errors.close()

    def _start(self) -> None:
        ours, theirs = Pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "tilewright.runtime.serve", self.kind, str(theirs.fileno())]
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the worker stops)
            # A session of its own: Ctrl-C in the terminal is for the tuner, which ends its workers in order.
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            )  # fmt: skip
        except OSError as error:
            raise RuntimeFailure(f"cannot start a worker process: {error.strerror or error}") from error
        finally:
            theirs.close()
        self.connection = ours
        try:
            self.connection.send(self.limits)
            if not self.connection.poll(START):
                raise EOFError
            self.connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            words = self._last_words()
            self.stop()
            raise RuntimeFailure(
                f"a worker process did not start: {words or 'it ended without a word'}", hint="tilewright doctor"
            ) from error

    def _last_words(self) -> str:
        """The last line the process wrote to its standard error."""
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def require_measurable(machine: Machine, threads: int) -> None:
    """RuntimeFailure unless code for ``machine`` on ``threads`` threads can be measured on this computer.

    Warns where the machine names no target and has no vector registers: then its instructions are emulated.
    """
    _check_threads(threads)
    try:
        of_machine(machine).require_host(f"a trial for machine {machine.name}")
    except RuntimeFailure as failure:
        raise RuntimeFailure(
            failure.message,
            hint="measure on a computer that has this machine (docs/cluster.md); accelerators of instruction words are searched "
            "on their simulator (docs/commands.md, docs/codesign.md)",
        ) from failure
    if not machine.target.triple and not machine.vector_bits:
        warnings.warn(
            f"machine {machine.name} names no target: this computer emulates its instructions, and what is measured is the emulation",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_threads(threads: int) -> None:
    available = len(available_cpus())
    if not 1 <= threads <= available:
        raise RuntimeFailure(f"a trial on {threads} threads with {available} processors", hint="use at most as many threads as processors")
