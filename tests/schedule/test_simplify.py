from __future__ import annotations

from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import If, loops, walk
from tilewright.schedule import Schedule


def test_guards_of_a_peeled_tail_disappear() -> None:
    k = kernel_of("def f(x: f64[37]):\n    for i in range(37):\n        x[i] = x[i] * 2.0\n")
    s = Schedule(k)
    io, _ = s.split("i", 8, "guard")
    s.peel(io)
    s.simplify()
    main = next(f for f in loops(s.kernel) if f.name == io)
    assert not any(isinstance(t, If) for t in walk(main))
    assert_same(k, s.kernel)


def test_loops_that_run_once_are_handles() -> None:
    s = Schedule(kernel_of("def f(x: f64[3]):\n    for i in range(1):\n        x[i] = 0.0\n"))
    s.simplify()
    assert [f.name for f in loops(s.kernel)] == ["i"]
    s.simplify(keep_loops=False)
    assert not loops(s.kernel)
