"""The measuring protocol: contenders timed in turns, raw samples and conditions kept.

Machines are shared and clocks drift, so contenders are never timed one after the other: every
round times each of them once, in an order that rotates, and they are compared round by round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from os import PathLike
from pathlib import Path
from typing import Any

from tilewright.runtime.pool import available_cpus
from tilewright.runtime.processors import confined, placed, preemptions, quiet_cpus
from tilewright.util.errors import RuntimeFailure

#: Seconds waited at most for other threads to rest before a sample, and the part of one processor they may still use.
LONGEST_REST, RESTING = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where and how a measurement ran: ``threads`` per contender, processors allowed, load before."""

    date: str
    processor: str
    system: str
    threads: int
    cpus: tuple[int, ...]
    load: float
    warmup: int
    repeats: int
    min_time: float
    settle: float = 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call of one contender: one sample per round, each the mean of ``calls`` calls."""

    name: str
    samples: tuple[float, ...]
    calls: int

    @property
    def min(self) -> float:
        """Fastest round: what the code can do."""
        return min(self.samples)

    @property
    def median(self) -> float:
        """Middle round: what it usually does here."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Interquartile range over the median: how noisy the machine was."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4)
        return (high - low) / self.median


@dataclass(frozen=True, slots=True)
class Measurement:
    """Timings of all contenders from the same rounds."""

    timings: tuple[Timing, ...]
    conditions: Conditions

    def __getitem__(self, name: str) -> Timing:
        """The timing of contender ``name``."""
        for t in self.timings:
            if t.name == name:
                return t
        raise RuntimeFailure(f"no contender {name!r} was measured", hint=f"measured: {', '.join(t.name for t in self.timings)}")

    def ratio(self, name: str, over: str) -> float:
        """Median over the rounds of time(``over``) / time(``name``): above 1, ``name`` is faster."""
        pairs = zip(self[name].samples, self[over].samples, strict=True)
        return statistics.median(b / a for a, b in pairs)

    def to_json(self) -> str:
        """All samples and conditions, as :meth:`from_json` reads them."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Measurement:
        """The measurement ``to_json`` wrote."""
        data: dict[str, Any] = json.loads(text)
        timings = tuple(Timing(t["name"], tuple(t["samples"]), t["calls"]) for t in data["timings"])
        return Measurement(timings, Conditions(**{**data["conditions"], "cpus": tuple(data["conditions"]["cpus"])}))

    def save(self, path: str | PathLike[str]) -> None:
        """Write :meth:`to_json` to a file."""
        Path(path).write_text(self.to_json() + "\n")


def measure(
    contenders: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 2,
    repeats: int = 15,
    min_time: float = 0.002,
    settle: float = 0.0,
    threads: int | None = None,
    retries: int = 0,
    lead: bool = False,
) -> Measurement:
    """Time ``contenders`` (name -> function without arguments) in turns.

    Each is called ``warmup`` times, then so often per sample that a sample lasts ``min_time``
    seconds, in ``repeats`` rounds. Before each sample ``settle`` seconds pass, and again until no thread of the
    process works any more, then one call is not timed: thread pools of other contenders that still spin for more work
    (OpenBLAS's for a tenth of a second) would take processors from this one. ``threads`` states how many
    threads each contender uses (setting theirs is the caller's affair): the process is confined to that many
    processors meanwhile, those on which least goes on, so
    nobody gets more, and the threads of each contender get a processor each. A sample during which other programs took a
    processor away is made again, up to ``retries`` times, and the fastest counts. Exceptions of a contender pass through.

    ``lead``: the call that is not timed is made without ``settle``, too. It matters to contenders that share large arrays and are
    called once or twice a sample: who reads an array in another order than the one before finds parts of it in the caches, which its own
    calls would not leave there.
    """
    if not contenders or repeats < 1 or warmup < 0:
        raise RuntimeFailure(f"measure: {len(contenders)} contenders, {repeats} repeats, {warmup} warm-ups", hint="measure({'ours': f})")
    cpus = available_cpus()
    count = threads or len(cpus)
    if count > len(cpus):
        raise RuntimeFailure(f"measure with {count} threads on {len(cpus)} processors", hint="use at most as many threads as processors")
    chosen = quiet_cpus(count)
    with confined(chosen):
        load = os.getloadavg()[0]
        calls = {name: _calibrate(f, warmup, min_time) for name, f in contenders.items()}
        samples_of = [partial(_time, f, calls[name]) for name, f in contenders.items()]
        with placed(samples_of, chosen, partial(_wait_for_rest, settle)):
            samples = _rounds(contenders, calls, repeats, settle, retries, lead or settle > 0)
    conditions = Conditions(
        datetime.now(UTC).isoformat(timespec="seconds"),
        processor_name(), platform.platform(), count, chosen, load, warmup, repeats, min_time, settle,
    )  # fmt: skip
    return Measurement(tuple(Timing(n, tuple(samples[n]), calls[n]) for n in contenders), conditions)


def _calibrate(function: Callable[[], object], warmup: int, min_time: float) -> int:
    """Calls that together last ``min_time``, judged by the fastest of a few."""
    for _ in range(warmup):
        function()
    best = min(_time(function, 1) for _ in range(3))
    return max(1, round(min_time / max(best, 1e-9)))


def _time(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        function()
    return (time.perf_counter_ns() - start) / calls / 1e9


def _undisturbed(function: Callable[[], object], calls: int, retries: int) -> float:
    """Seconds per call, made again while other programs got in between: the fastest of at most ``retries`` + 1."""
    best = inf
    for _ in range(retries + 1):
        before = preemptions()
        best = min(best, _time(function, calls))
        if preemptions() == before:
            break
    return best


def _wait_for_rest(settle: float) -> None:
    """Sleep for ``settle`` seconds, and again while other threads of the process are found working meanwhile."""
    for _ in range(max(1, round(LONGEST_REST / settle)) if settle else 0):
        before = time.process_time()
        time.sleep(settle)
        if time.process_time() - before < settle * RESTING:
            return


def _rounds(
    contenders: Mapping[str, Callable[[], object]], calls: Mapping[str, int], repeats: int, settle: float, retries: int, lead: bool
) -> dict[str, list[float]]:
    order = list(contenders)
    samples: dict[str, list[float]] = {name: [] for name in order}
    for n in range(repeats):
        shift = n % len(order)
        for name in order[shift:] + order[:shift]:
            _wait_for_rest(settle)
            if lead:
                contenders[name]()
            samples[name].append(_undisturbed(contenders[name], calls[name], retries))
    return samples


def processor_name() -> str:
    """The processor's name as the system gives it, with its family and model numbers where it has them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name
