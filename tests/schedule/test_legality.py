"""The dependence checks decide exactly what enumerating all pairs of statement instances decides."""

from __future__ import annotations

from random import Random

import pytest
from tests.ir.execution import conflict, instances
from tests.schedule.programs import RandomKernel

from tilewright.ir.affine import Statement, Time
from tilewright.ir.expr import Var
from tilewright.ir.stmt import For, Kernel, loops, walk
from tilewright.schedule.legality import check_independent, check_order, region_of
from tilewright.util.errors import ScheduleError


def refused(check: object) -> bool:
    assert callable(check)
    try:
        check()
    except ScheduleError:
        return True
    return False


def around(kernel: Kernel, loop: For) -> list[str]:
    return [f.name for f in loops(kernel) if f is not loop and any(s is loop for s in walk(f))]


def races(kernel: Kernel, loop: For, sizes: dict[str, int]) -> bool:
    """Whether two iterations of ``loop`` under equal outer iterations conflict."""
    outer = around(kernel, loop)
    runs = [i for i in instances(kernel, sizes) if loop.name in i.iteration]
    for n, a in enumerate(runs):
        for b in runs[n + 1 :]:
            if a.iteration[loop.name] != b.iteration[loop.name] and all(a.iteration[o] == b.iteration[o] for o in outer):
                if conflict(a, b, commuting=False):
                    return True
    return False


def reverses(kernel: Kernel, outer: For, inner: For, sizes: dict[str, int]) -> bool:
    """Whether exchanging the two loops (for everything inside ``inner``) reverses a dependence."""
    fixed = around(kernel, outer)
    runs = [i for i in instances(kernel, sizes) if inner.name in i.iteration]
    for n, a in enumerate(runs):
        for b in runs[n + 1 :]:
            x, y = a.iteration, b.iteration
            if all(x[o] == y[o] for o in fixed) and (x[inner.name], x[outer.name]) > (y[inner.name], y[outer.name]):
                if conflict(a, b, commuting=True):
                    return True
    return False


def small(kernel: Kernel, sizes: dict[str, int]) -> bool:
    return len(instances(kernel, sizes)) <= 250


@pytest.mark.parametrize("block", range(8))
def test_independence_is_decided_exactly(block: int) -> None:
    decided = {True: 0, False: 0}
    for seed in range(block * 25, block * 25 + 25):
        rng = Random(seed)
        kernel = RandomKernel(rng).build()
        if kernel.sizes or not loops(kernel) or not small(kernel, {}):
            continue
        loop = rng.choice(loops(kernel))
        verdict = refused(lambda k=kernel, f=loop: check_independent(region_of(k, f), f.name, "test"))
        assert verdict == races(kernel, loop, {}), f"seed {seed}, loop {loop.name}\n{kernel}"
        decided[verdict] += 1
    assert min(decided.values()) > 0


@pytest.mark.parametrize("block", range(8))
def test_interchange_is_decided_exactly(block: int) -> None:
    checked = 0
    for seed in range(1000 + block * 40, 1000 + block * 40 + 40):
        kernel = RandomKernel(Random(seed)).build()
        if kernel.sizes or not small(kernel, {}):
            continue
        for outer in loops(kernel):
            if len(outer.body.stmts) != 1 or not isinstance(inner := outer.body.stmts[0], For):
                continue
            swap = {outer.var: inner.var, inner.var: outer.var}

            def new_time(s: Statement, swap: dict[Var, Var] = swap) -> Time:
                return tuple(swap.get(t, t) if isinstance(t, Var) else t for t in s.time)

            verdict = refused(lambda k=kernel, f=outer, time=new_time: check_order(region_of(k, f), time, "test"))
            assert verdict == reverses(kernel, outer, inner, {}), f"seed {seed}, loops {outer.name}, {inner.name}\n{kernel}"
            checked += 1
    assert checked > 2
