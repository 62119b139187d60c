"""Random schedules of random kernels and of in-place nests compute what the unscheduled kernel computes."""

from __future__ import annotations

from random import Random

import pytest
from tests.ir.nests import NESTS as IN_PLACE
from tests.schedule.nests import NESTS
from tests.schedule.programs import RandomKernel, assert_same
from tests.schedule.steps import random_step

from tilewright.ir.stmt import Kernel, loops
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ExecutionError, ScheduleError

#: Attempts for one sequence, and the steps after which it is long enough (programs grow with each).
ATTEMPTS, LENGTH, MOST_LOOPS = 30, 5, 24
#: What nests of any form can be asked; other primitives look for patterns (test_every_primitive.py).
KINDS = (
    *("split", "tile", "fuse", "reorder", "reorder", "reorder", "unroll", "vectorize"),
    *("parallel", "bind", "fission", "peel", "skew", "merge"),
    *("cache_read", "cache_write", "cache_read", "cache_write", "compute_at", "inline", "hoist", "rfactor", "layout", "simplify"),
)


def program(rng: Random) -> tuple[Kernel, dict[str, int]]:
    """A random kernel, or one of the nests, with sizes to run it at."""
    if rng.random() < 0.1:
        return rng.choice(list(IN_PLACE.values())).kernel, {}
    if rng.random() < 0.3:
        return rng.choice(list(NESTS.values())), {"N": rng.randrange(1, 8), "T": 2}
    kernel = RandomKernel(rng).build()
    return kernel, {"N": rng.randrange(0, 6)}


def sequence(seed: int) -> tuple[int, int]:
    """Applies one random sequence and checks the result. Returns (accepted, refused) steps."""
    rng = Random(seed)
    original, sizes = program(rng)
    sizes = {v.name: sizes[v.name] for v in original.sizes}
    sch = Schedule(original)
    refused = 0
    for _ in range(ATTEMPTS):
        if len(sch.trace) >= LENGTH or len(loops(sch.kernel)) > MOST_LOOPS:
            break
        try:
            random_step(rng, sch, KINDS)
        except ScheduleError:
            refused += 1
    try:
        assert_same(original, sch.kernel, sizes, seed)
        if seed % 10 == 0:
            assert parse(str(sch.kernel)) == sch.kernel
            assert replay(original, sch.trace).kernel == sch.kernel
    except (AssertionError, ExecutionError) as e:
        raise AssertionError(f"seed {seed}, sizes {sizes}:\n{sch.trace}\n{original}\n{sch.kernel}\n{e}") from e
    return len(sch.trace), refused


def campaign(seeds: range) -> tuple[int, int]:
    """Number of sequences with at least one accepted step, and of refused steps."""
    accepted = refused = 0
    for seed in seeds:
        a, r = sequence(seed)
        accepted += a > 0
        refused += r
    return accepted, refused


def test_random_schedules_keep_the_meaning() -> None:
    accepted, refused = campaign(range(300))
    assert accepted > 200
    assert refused > 200  # the generator must also ask for what is illegal


@pytest.mark.slow
def test_two_thousand_random_schedules_keep_the_meaning() -> None:
    accepted, _ = campaign(range(10_000, 12_150))
    assert accepted >= 2000
