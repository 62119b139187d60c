"""One trial, step by step: schedule, compile, verify, measure. Runs inside workers; isolates nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from tilewright.hw.load import load_machine
from tilewright.hw.machine import Machine
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.runtime.arguments import Packed
from tilewright.runtime.jobs import Job, Recipe
from tilewright.runtime.measurement import measure
from tilewright.runtime.memory import NUMPY_OFFSET, aligned, aligned_empty
from tilewright.runtime.module import BoundCall, Code, Module, assembled
from tilewright.runtime.packing import pack, physical_shape
from tilewright.runtime.signature import Role, Signature, signature
from tilewright.runtime.target import of_machine
from tilewright.runtime.verify import check, index_limit, random_array
from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import RuntimeFailure

#: A candidate this many times slower than the bar is timed once.
HOPELESS = 2.0
MIN_SAMPLES, MAX_SAMPLES = 5, 40
#: Seconds: one sample lasts at least SAMPLE_TIME, all of them together about TOTAL_TIME.
SAMPLE_TIME, TOTAL_TIME = 0.001, 0.04
#: A sample of a comparison that other programs got into is made again so often.
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled candidate on its way from the process that built it to the one that runs it."""

    kernel: Kernel
    code: Code
    parameters: Signature
    trace: Trace


@dataclass(frozen=True, slots=True)
class Data:
    """What candidates for one program are verified and measured on: arguments by name before and after the call.

    Arrays of the arguments in ``unaligned`` lie where callers' arrays usually do, the others begin at a cache line.
    """

    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    unaligned: frozenset[str] = frozenset()

    def past(self, name: str) -> int:
        """Bytes past a cache line at which the array of argument ``name`` begins."""
        return NUMPY_OFFSET if name in self.unaligned else 0


def construct(kernel: Kernel, trace: Trace | Recipe, machine: Machine) -> Built:
    """Schedule and compile a candidate. TilewrightError when a step refuses or no code can be made for it."""
    schedule: Schedule = replay(kernel, trace, machine) if isinstance(trace, Trace) else trace(kernel, machine)
    target = of_machine(machine)
    code = assembled(schedule.kernel, machine, target)
    return Built(schedule.kernel, code, signature(schedule.kernel), schedule.trace)


def machine_of(job: Job) -> Machine:
    """The job's machine."""
    return load_machine(job.machine) if isinstance(job.machine, str) else job.machine


def make_data(kernel: Kernel, seed: int) -> Data:
    """Random arguments and what the reference semantics makes of them. RuntimeFailure for symbolic sizes."""
    if kernel.sizes:
        raise RuntimeFailure(
            f"{kernel.name} has symbolic sizes {', '.join(map(str, kernel.sizes))}", hint="bind them: tilewright.ir.stmt.specialize"
        )
    rng = np.random.default_rng(seed)
    inputs, after = {}, {}
    for p in signature(kernel).parameters:
        shape = p.shape({})
        if p.role is Role.OUT:
            after[p.name] = np.zeros(shape, p.storage)
            continue
        array = aligned_empty(shape, p.storage)
        array[...] = random_array(p.buffer.dtype, shape, rng, index_limit(kernel, p.buffer, {}))
        inputs[p.name], after[p.name] = array, array.copy()
    reference(kernel, after, {})
    return Data(inputs, {p.name: after[p.name] for p in signature(kernel).written})


def placed(data: Data, unaligned: Iterable[str] = ()) -> Data:
    """``data`` where callers have theirs (:attr:`Job.unaligned`): arrays that come from another process lie anywhere."""
    there = Data({}, data.expected, frozenset(unaligned))
    return replace(there, inputs={name: aligned(a, past=there.past(name)) for name, a in data.inputs.items()})


def load(built: Built, machine: Machine, threads: int) -> Module:
    """The candidate in this process."""
    return Module(built.kernel, built.code, machine=machine, threads=threads, parameters=built.parameters)


def verify(module: Module, kernel: Kernel, data: Data, seed: int) -> None:
    """RuntimeFailure, naming the worst element, unless ``module`` computes what is expected of ``kernel``."""

    def oracle(_: Kernel, arguments: dict[str, np.ndarray], sizes: Mapping[str, int] | None) -> None:
        for name, array in data.expected.items():
            arguments[name][...] = array

    check(module, kernel, trials=1, seed=seed, inputs=data.inputs, oracle=oracle)


def bind(module: Module, data: Data) -> BoundCall:
    """A call on the trial's data; arguments with a layout are packed beforehand, as a network would."""
    arguments: list[np.ndarray | Packed] = []
    for p in module.signature.parameters:
        logical = data.inputs.get(p.name)
        shape = p.shape({})
        if p.buffer.layout is not None:
            physical = aligned_empty(physical_shape(p.buffer.layout, shape), p.storage, zero=True)
            if logical is not None:
                pack(logical, p.buffer.layout, physical)
            arguments.append(Packed(physical, p.buffer.layout, shape))
        elif logical is None or p.written:
            array = aligned_empty(shape, p.storage, zero=True, past=data.past(p.name))
            if logical is not None:
                array[...] = logical
            arguments.append(array)
        else:
            arguments.append(logical)
    return module.bind(*arguments)


def sample(call: Callable[[], object], bar: float = inf) -> tuple[float, ...]:
    """Seconds per call, as many samples as it is worth: one when it is hopeless against ``bar``, more when it is fast."""
    call()
    first = _time(call, 1)
    if first > HOPELESS * bar:
        return (min(first, _time(call, 1)),)
    calls = max(1, round(SAMPLE_TIME / max(first, 1e-9)))
    count = min(MAX_SAMPLES, max(MIN_SAMPLES, int(TOTAL_TIME / max(first * calls, 1e-9))))
    return tuple(_time(call, calls) for _ in range(count))


def _time(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / calls / 1e9


def compare(kernel: Kernel, modules: Sequence[Module], rounds: int, seed: int, unaligned: Iterable[str] = ()) -> list[tuple[float, ...]]:
    """Verify every candidate on fresh data and time all in turns; RuntimeFailure when one is wrong."""
    data = placed(make_data(kernel, seed), unaligned)
    for m in modules:
        verify(m, kernel, data, seed)
    calls = {str(n): bind(m, data) for n, m in enumerate(modules)}
    measured = measure(calls, repeats=rounds, min_time=0.003, threads=modules[0].threads, retries=RETRIES, lead=True)
    return [measured[name].samples for name in calls]
