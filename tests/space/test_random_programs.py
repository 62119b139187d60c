"""Random tensor programs, scheduled by default and compiled, compute what the reference computes."""

from __future__ import annotations

import pytest
from tests.space.programs import Generator, Program

from tilewright.hw import Machine
from tilewright.runtime import build, check
from tilewright.space.default import default_schedule


@pytest.fixture(scope="module")
def host() -> Machine:
    return Machine.host()


def verify(program: Program, machine: Machine, seed: int) -> None:
    """Schedule, compile, run, compare; any failure names the seed and prints the program."""
    try:
        sch = default_schedule(program.kernel, machine, threads=program.threads, constants=program.constants)
        module = build(sch, machine, threads=program.threads, cache=False)
        check(module, program.kernel, trials=1, seed=seed)
    except Exception as error:
        raise AssertionError(
            f"seed {seed}, constants {program.constants}, threads {program.threads}: {error!r}\n{program.kernel}"
        ) from error


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_random_programs(host: Machine, first: int) -> None:
    for seed in range(first, first + 10):
        verify(Generator(seed).program(), host, seed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(10_000, 13_200, 100))
def test_many_random_programs(host: Machine, first: int) -> None:
    for seed in range(first, first + 100):
        verify(Generator(seed).program(), host, seed)
