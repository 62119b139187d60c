"""Fusion by measured cost: what is measured decides, is remembered, and cannot harm whoever asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.graph.test_fusion import build, kinds, node, weight

from tilewright.graph import Graph, load
from tilewright.graph import measured as module
from tilewright.graph.fusion import fuse
from tilewright.graph.measured import MeasuredCost
from tilewright.graph.network import plan_steps
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.runtime.jobs import Done, Job, Limits, Outcome
from tilewright.runtime.planned import Planned
from tilewright.runtime.workers import Workers
from tilewright.util.errors import RuntimeFailure, ScheduleError

HOST = Machine.host()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


class Clock:
    """Says what kernels take, by their numbers of nests; keeps what it was asked."""

    width = 1

    def __init__(self, seconds: Callable[[Kernel], float | Outcome] = lambda kernel: 1e-5):
        self.seconds, self.asked = seconds, list[Job]()

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        self.asked += jobs
        found = [self.seconds(j.kernel) for j in jobs]
        return [f if isinstance(f, Outcome) else Outcome("ok", (2 * f, f)) for f in found]

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def pair() -> Graph:
    """A product and what is done with it."""
    return load(build([node("MatMul", "x a", "m"), node("Relu", "m", "y")], {"x": [8, 16]}, ["y"], {"a": weight(16, 24)}))


def divided(graph: Graph, clock: Clock) -> list[str]:
    return kinds(graph, "measured", MeasuredCost(HOST, 1, clock))


def both(kernel: Kernel) -> bool:
    return "relu" in kernel.name and "matmul" in kernel.name


def test_the_division_that_takes_less_is_chosen() -> None:
    assert divided(pair(), Clock(lambda k: 5e-5 if both(k) else 2e-5)) == ["MatMul", "Relu"]


def test_and_so_is_the_other() -> None:
    assert divided(pair(), Clock(lambda k: 3e-5 if both(k) else 2e-5)) == ["MatMul+Relu"]


def test_what_was_measured_is_remembered_by_machine_and_threads() -> None:
    first, second, third = Clock(lambda k: 5e-5 if both(k) else 2e-5), Clock(lambda k: 1.0), Clock(lambda k: 3e-5 if both(k) else 2e-5)
    assert divided(pair(), first) == divided(pair(), second) == ["MatMul", "Relu"]
    assert len(first.asked) == 3 and not second.asked
    assert kinds(pair(), "measured", MeasuredCost(HOST, 2, third)) == ["MatMul+Relu"] and len(third.asked) == 3
    assert {j.threads for j in third.asked} == {2}


def test_nothing_is_started_for_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    divided(pair(), Clock(lambda k: 5e-5 if both(k) else 2e-5))
    monkeypatch.setattr(module, "Workers", lambda builders: pytest.fail("everything is in the cache"))
    plan = fuse(pair(), "measured", machine=HOST, threads=1)
    assert [s.operators for s in plan_steps(pair(), plan.groups)] == [("MatMul",), ("Relu",)]


@pytest.mark.parametrize("status", ["wrong", "crash", "timeout", "memory"])
def test_what_cannot_be_measured_is_not_fused_and_not_remembered(status: str) -> None:
    def seconds(kernel: Kernel) -> float | Outcome:
        return Outcome(status, message="so it is") if both(kernel) else 1.0  # type: ignore[arg-type]

    for _ in range(2):
        clock = Clock(seconds)
        with pytest.warns(RuntimeWarning, match=rf"matmul_relu cannot be measured \({status}\): so it is; .* not fused"):
            assert divided(pair(), clock) == ["MatMul", "Relu"]
        assert any(both(j.kernel) for j in clock.asked)


def test_a_machine_that_is_not_here_is_an_error_with_the_way_out() -> None:
    with pytest.raises(RuntimeFailure, match=r"cannot be measured \(build_error\): no code for it") as refused:
        divided(pair(), Clock(lambda k: Outcome("build_error", message="no code for it")))
    assert "fusion='dp'" in (refused.value.hint or "")


def planned_as(change: Callable[[str], str]) -> Callable[..., Planned]:
    """Schedules that do something else to the kernel."""
    return lambda kernel, machine, **how: Planned(parse(change(str(kernel))), (), ())


def test_kernels_are_measured_elsewhere_verified_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """With real processes: one that is right, one that writes wherever it likes, one that computes something else, one that hangs."""
    kernel = parse("""
@kernel
def sums(x: f32[64, 32], y: f32[64]):
    for i in range(64):
        y[i] = 0.0
    for i_1 in range(64):
        for k in range(32):
            y[i_1] += x[i_1, k]
""")
    out_of_range = "y[i_1] +=", "y[i_1 * i_1 * 1000000000] +="
    half = "k in range(32)", "k in range(16)"
    endless = "for k in range(32):\n            y", "for again in range(1099511627776):\n            for k in range(32):\n                y"
    # Time-outs must not depend on what else runs here: only for the kernel that never ends is the limit short.
    with Workers(builders=1) as patient, Workers(builders=1, limits=Limits(run=3.0)) as hasty:
        cost = MeasuredCost(HOST, 1, patient)
        assert cost(kernel, frozenset()) > 1e-8
        for workers, (old, new), status in ((patient, out_of_range, "crash"), (patient, half, "wrong"), (hasty, endless, "timeout")):
            monkeypatch.setattr(module, "planned", planned_as(lambda text, old=old, new=new: text.replace(old, new)))
            with pytest.warns(RuntimeWarning, match=status), pytest.raises(ScheduleError, match=rf"sums cannot be measured \({status}\)"):
                MeasuredCost(HOST, 1, workers)(kernel, frozenset())
        monkeypatch.undo()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert cost(kernel, frozenset()) > 1e-8


def test_a_measured_network_computes_the_same() -> None:
    from tilewright.graph import compile

    graph = build([node("MatMul", "x a", "m"), node("Relu", "m", "y")], {"x": [8, 16]}, ["y"], {"a": weight(16, 24)})
    x = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    found = compile(graph, threads=1, fusion="measured")
    np.testing.assert_allclose(found({"x": x})["y"], np.maximum(x @ weight(16, 24), 0), rtol=1e-4, atol=1e-5)
    assert found.fusion is not None and found.fusion.method == "measured" and (found.fusion.seconds or 0) > 0
