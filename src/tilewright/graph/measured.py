"""What a kernel takes as the default rules schedule it: built, run on random data, timed, remembered."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.cache import build_cache
from tilewright.runtime.fingerprint import machine_fingerprint
from tilewright.runtime.memory import aligned_empty
from tilewright.runtime.module import Module, build
from tilewright.runtime.planned import planned
from tilewright.runtime.signature import Role
from tilewright.runtime.trial import Data, bind, sample
from tilewright.runtime.verify import random_array


def measured_cost(machine: Machine, threads: int) -> Callable[[Kernel, frozenset[str]], float]:
    """A function from (kernel, its constant arguments) to seconds; results are kept in the build cache.

    It raises ScheduleError for programs without a schedule, as the default rules do.
    """
    cache = build_cache()

    def cost(kernel: Kernel, constants: frozenset[str]) -> float:
        scheduled = planned(kernel, machine, threads=threads, constants=constants).kernel
        key = cache.key("seconds", machine_fingerprint(machine), threads, str(scheduled))
        if (entry := cache.load(key)) is not None:
            return float(json.loads(entry))
        seconds = _timed(build(scheduled, machine, threads=threads))
        cache.store(key, json.dumps(seconds).encode())
        return seconds

    return cost


def _timed(module: Module) -> float:
    """The fastest of several runs: other programs on the machine only ever add time."""
    rng = np.random.default_rng(0)
    inputs = {}
    for p in module.signature.parameters:
        if p.role is not Role.OUT:
            inputs[p.name] = aligned_empty(p.shape({}), p.storage)
            inputs[p.name][...] = random_array(p.buffer.dtype, p.shape({}), rng, limit=2)
    return min(sample(bind(module, Data(inputs, {}))))
