"""Random sequences of all primitives, on random kernels of the forms that they look for, keep what the kernel computes."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from tests.schedule.patterns import FORMS
from tests.schedule.programs import assert_same, run
from tests.schedule.steps import STEPS, random_step

from tilewright.hw import load_machine
from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Call, Kernel, walk
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.schedule.primitive import discover
from tilewright.util.errors import ExecutionError, TilewrightError

#: Attempts for one sequence, and the steps and statements after which it is long enough.
ATTEMPTS, LENGTH, MOST = 40, 6, 300


@pytest.fixture(scope="module")
def machine() -> Machine:
    return load_machine("x86.avx2")


def program(rng: Random, seed: int) -> tuple[Kernel, tuple[str, ...]]:
    """A random kernel that has a meaning, and the primitives that look for its form."""
    while True:
        form = rng.choice(list(FORMS))
        kernel = form(rng)
        try:
            run(kernel, {}, seed)
        except ExecutionError:  # it reads what nobody stored, or outside of an array
            continue
        return kernel, FORMS[form]


def sequence(seed: int, machine: Machine) -> Counter[str]:
    """Applies one random sequence and checks the result. Returns what was accepted."""
    rng = Random(seed)
    original, favourites = program(rng, seed)
    sch = Schedule(original, machine)
    for _ in range(ATTEMPTS):
        if len(sch.trace) >= LENGTH or sum(1 for _ in walk(sch.kernel.body)) > MOST:
            break
        try:
            random_step(rng, sch, favourites if rng.random() < 0.5 else tuple(STEPS))
        except TilewrightError as refusal:  # any other exception is a fault
            assert str(refusal).strip()
    try:
        verify(sch.kernel)
        assert_same(original, sch.kernel, {}, seed)
        assert replay(original, sch.trace, machine).kernel == sch.kernel
        assert any(isinstance(s, Call) for s in walk(sch.kernel.body)) or parse(str(sch.kernel)) == sch.kernel
    except (AssertionError, TilewrightError) as e:
        raise AssertionError(f"seed {seed}:\n{sch.trace}\n{original}\n{sch.kernel}\n{e}") from e
    return Counter(s.primitive for s in sch.trace.steps)


def test_a_step_is_known_for_every_primitive() -> None:
    assert STEPS.keys() == discover().keys()


def test_sequences_of_all_primitives_keep_the_meaning(machine: Machine) -> None:
    accepted = sum((sequence(seed, machine) for seed in range(60)), Counter[str]())
    assert len(accepted) > 25, accepted


@pytest.mark.slow
def test_thousands_of_sequences_keep_the_meaning(machine: Machine) -> None:
    accepted = sum((sequence(seed, machine) for seed in range(10_000, 13_000)), Counter[str]())
    assert accepted.keys() >= STEPS.keys() - {"tensorize"}, STEPS.keys() - accepted.keys()
