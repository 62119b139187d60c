"""What a kernel takes as the default rules schedule it: measured by worker processes, as trials of the tuner are, and remembered."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from types import TracebackType

from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.cache import build_cache
from tilewright.runtime.fingerprint import machine_fingerprint
from tilewright.runtime.jobs import Executor, Job
from tilewright.runtime.planned import planned
from tilewright.runtime.workers import Workers
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import RuntimeFailure, ScheduleError


@dataclass(frozen=True, slots=True)
class AsScheduled:
    """A recipe: this program, whatever led to it."""

    kernel: Kernel

    def __call__(self, kernel: Kernel, machine: Machine) -> Schedule:
        return Schedule(self.kernel, machine)


class MeasuredCost:
    """Seconds of (kernel, its constant arguments); results are kept in the build cache.

    Processes of this computer measure, and are started when something is not in the cache; or ``executor`` does. Raises ScheduleError for
    programs without a schedule, as the default rules do, and, after a warning, for kernels that crash, hang or compute something else;
    RuntimeFailure where no code can be made.
    """

    def __init__(self, machine: Machine, threads: int, executor: Executor | None = None):
        self._machine, self._threads, self._executor = machine, threads, executor
        self._own: Executor | None = None
        self._cache = build_cache()

    def __call__(self, kernel: Kernel, constants: frozenset[str]) -> float:
        scheduled = planned(kernel, self._machine, threads=self._threads, constants=constants).kernel
        key = self._cache.key("seconds", machine_fingerprint(self._machine), self._threads, str(scheduled))
        if (entry := self._cache.load(key)) is not None:
            return float(json.loads(entry))
        seconds = self._measured(kernel, scheduled)
        self._cache.store(key, json.dumps(seconds).encode())
        return seconds

    def __enter__(self) -> MeasuredCost:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._own is not None:
            self._own.close()

    def _measured(self, kernel: Kernel, scheduled: Kernel) -> float:
        """The fastest of several runs: other programs on the machine only ever add time."""
        if self._executor is None:
            self._executor = self._own = Workers(builders=1)
        (outcome,) = self._executor.run([Job(kernel, AsScheduled(scheduled), self._machine, self._threads)])
        if outcome.ok:
            return outcome.seconds
        said = f"{kernel.name} cannot be measured ({outcome.status}): {outcome.message}"
        if outcome.status == "build_error":
            raise RuntimeFailure(said, hint="fusion='dp' estimates instead")
        warnings.warn(f"{said}; these operations are not fused", RuntimeWarning, stacklevel=2)
        raise ScheduleError(said)
