"""Random pipelines under random memory primitives equal the unscheduled program, element by element."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from tests.schedule.programs import RandomKernel, assert_same, kernel_of

from tilewright.ir.stmt import Kernel, all_buffers, allocated, loops
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import ExecutionError, IRTypeError, ScheduleError


class Pipeline:
    """A chain of stages over 2-d buffers: element-wise, stencils, padding, reductions, in-place updates."""

    def __init__(self, rng: Random):
        self.rng = rng
        self.n, self.m = rng.randrange(3, 8), rng.randrange(3, 9)
        self.lines: list[str] = []
        self.ready = ["x", "z"]
        self.count = 0

    def build(self) -> Kernel:
        stages = self.rng.randrange(1, 4)
        for s in range(stages):
            self.stage(last=s == stages - 1)
        shape = f"i32[{self.n}, {self.m}]"
        arguments = ", ".join(f"{b}: {shape}" for b in ("x", "z", "t1" if self.exposed else "unused", "y"))
        return kernel_of(f"def pipeline({arguments}):\n" + "\n".join(self.lines))

    @property
    def exposed(self) -> bool:
        return "    # exposed" in self.lines

    def stage(self, last: bool) -> None:
        rng = self.rng
        self.count += 1
        name = "y" if last else f"t{self.count}"
        if name == "t1" and rng.random() < 0.3:
            self.lines.append("    # exposed")
        elif not last:
            self.lines.append(f"    {name} = alloc(i32[{self.n}, {self.m}])")
        match rng.randrange(4):
            case 0:
                self.reduction(name)
            case 1 if last and self.count > 1:
                self.in_place(name)
            case _:
                self.nest(f"{name}[{{i}}, {{j}}] = {self.value()}")
        self.ready.append(name)

    def nest(self, body: str) -> None:
        i, j = self.fresh("i"), self.fresh("j")
        self.lines += [f"    for {i} in range({self.n}):", f"        for {j} in range({self.m}):", "            " + body.format(i=i, j=j)]

    def reduction(self, name: str) -> None:
        self.nest(f"{name}[{{i}}, {{j}}] = {self.rng.randrange(3)}")
        k = self.fresh("k")
        i, j = self.fresh("i"), self.fresh("j")
        source, other = self.rng.choice(self.ready), self.rng.choice(self.ready)
        self.lines += [
            f"    for {i} in range({self.n}):",
            f"        for {j} in range({self.m}):",
            f"            for {k} in range({min(self.n, self.m)}):",
            f"                {name}[{i}, {j}] += {source}[{i}, {k}] + {other}[{k}, {j}]",
        ]

    def in_place(self, name: str) -> None:
        self.nest(f"{name}[{{i}}, {{j}}] = {self.value()}")
        self.nest(f"{name}[{{i}}, {{j}}] = {name}[{{i}}, {{j}}] + {self.value()}")

    def value(self) -> str:
        return " + ".join(self.load() for _ in range(self.rng.randrange(1, 3)))

    def load(self) -> str:
        b = self.rng.choice(self.ready)
        d = self.rng.randrange(-1, 2)
        match self.rng.randrange(5):
            case 0:
                return f"{b}[{{i}}, {{j}}]"
            case 1:
                return f"where({{j}} + {d} >= 0 and {{j}} + {d} < {self.m}, {b}[{{i}}, {{j}} + {d}], 0)"
            case 2:
                return f"{b}[{{i}}, min(max({{j}} + {d}, 0), {self.m - 1})]"
            case 3:
                return f"{b}[{self.n - 1} - {{i}}, {{j}}]"
        return f"{b}[{{i}} // 2, ({{j}} + {self.rng.randrange(3)}) % {self.m}]"

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"


def step(s: Schedule, rng: Random) -> None:
    """One random primitive; ScheduleError when it is refused."""
    k = s.kernel
    loop = rng.choice(loops(k)).name
    buffer = rng.choice(all_buffers(k)).name
    local = rng.choice(allocated(k) or all_buffers(k)).name
    memory: list[Callable[[], object]] = [
        lambda: s.compute_at(local, loop, shrink=rng.random() < 0.7),
        lambda: s.compute_at(buffer, loop),
        lambda: s.compute_at(local, [loop, rng.choice(loops(k)).name]),
        lambda: s.inline(local),
        lambda: s.cache_read(buffer, rng.choice([loop, loop, None]), "l1", padded=rng.random() < 0.5),
        lambda: s.cache_write(buffer, rng.choice([loop, loop, None]), "reg"),
        lambda: s.hoist(local, loop),
        lambda: s.layout(buffer, rng.choice(["0 1", "1 0", "1/4 0 1"])),
    ]
    around: list[Callable[[], object]] = [
        lambda: s.split(loop, rng.choice([2, 3, 4]), rng.choice(["guard", "peel"])),
        lambda: s.reorder(loop, rng.choice(loops(k)).name),
        lambda: s.peel(loop),
        lambda: s.parallel(loop),
        lambda: s.simplify(tighten=rng.random() < 0.5),
    ]
    rng.choice(memory if rng.random() < 0.65 else around)()


def scheduled(kernel: Kernel, rng: Random, steps: int, accepted: dict[str, int]) -> Schedule:
    s = Schedule(kernel)
    for _ in range(steps):
        if not loops(s.kernel) or len(loops(s.kernel)) > 40:
            break
        try:
            step(s, rng)
        except (ScheduleError, IRTypeError):  # IRTypeError: a layout of another rank
            continue
        accepted[s.trace.steps[-1].primitive] = accepted.get(s.trace.steps[-1].primitive, 0) + 1
    return s


def check(kernel: Kernel, s: Schedule, seed: int, sizes: dict[str, int]) -> None:
    try:
        assert_same(kernel, s.kernel, sizes, seed)
    except (AssertionError, ExecutionError) as e:
        raise AssertionError(f"seed {seed}\n{s.trace}\n{e}\n{kernel}\n{s.kernel}") from e
    assert parse(str(s.kernel)) == s.kernel, f"{s.trace}\n{s.kernel}\n{parse(str(s.kernel))}"


def pipelines(seeds: range) -> dict[str, int]:
    accepted: dict[str, int] = {}
    for seed in seeds:
        rng = Random(seed)
        kernel = Pipeline(rng).build()
        check(kernel, scheduled(kernel, rng, 14, accepted), seed, {})
    return accepted


def test_pipelines() -> None:
    accepted = pipelines(range(150))
    for primitive in ("compute_at", "inline", "cache_read", "cache_write"):
        assert accepted.get(primitive, 0) >= 10, accepted


@pytest.mark.slow
def test_many_pipelines() -> None:
    pipelines(range(1000, 4000))


def irregular(seeds: range) -> int:
    accepted: dict[str, int] = {}
    for seed in seeds:
        rng = Random(seed)
        kernel = RandomKernel(rng).build()
        if loops(kernel):
            check(kernel, scheduled(kernel, rng, 8, accepted), seed, {"N": rng.randrange(6)} if kernel.sizes else {})
    return sum(accepted.values())


def test_irregular_nests() -> None:
    assert irregular(range(60)) > 60


@pytest.mark.slow
def test_many_irregular_nests() -> None:
    irregular(range(1000, 3000))
