"""The schedule object: dispatch, traces, replay, and the cost of applying primitives."""

from __future__ import annotations

import json
import time

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import find_loop
from tilewright.schedule import Schedule, Trace, replay
from tilewright.schedule.primitive import discover, primitive
from tilewright.util.errors import ScheduleError

CONV = """
def conv(x: f32[2, 32, 30, 30], w: f32[64, 32, 3, 3], y: f32[2, 64, 28, 28]):
    for n in range(2):
        for k in range(64):
            for p in range(28):
                for q in range(28):
                    y[n, k, p, q] = 0.0
    for n1 in range(2):
        for k1 in range(64):
            for p1 in range(28):
                for q1 in range(28):
                    for c in range(32):
                        for r in range(3):
                            for s in range(3):
                                y[n1, k1, p1, q1] += x[n1, c, p1 + r, q1 + s] * w[k1, c, r, s]
"""


def scheduled() -> Schedule:
    sch = Schedule(NESTS["gemm"])
    sch.fission("j")
    sch.fission("i")
    sch.split("i_1", 4, tail="peel")
    sch.reorder("k", "j_1")
    sch.vectorize("j_1", 8)
    sch.parallel("i")
    return sch


def test_primitives_are_methods() -> None:
    sch = Schedule(NESTS["gemm"])
    assert {"split", "reorder", "parallel", "kernel", "trace"} <= set(dir(sch))
    assert "multiple of the factor" in (sch.split.__doc__ or "")
    with pytest.raises(AttributeError, match=r"no primitive 'spilt'; it has: .*split"):
        sch.spilt("i", 4)
    with pytest.raises(ScheduleError, match="there is no primitive 'spilt'"):
        sch.apply("spilt", "i", 4)


def test_arguments_are_checked_against_the_signature() -> None:
    with pytest.raises(ScheduleError, match="split: missing a required argument: 'factor'") as e:
        Schedule(NESTS["gemm"]).split("i")
    assert "split(loop: " in str(e.value)
    with pytest.raises(ScheduleError, match="unexpected keyword argument 'size'"):
        Schedule(NESTS["gemm"]).split("i", 2, size=3)


def test_loop_nodes_stand_for_their_names() -> None:
    sch = Schedule(NESTS["gemm"])
    sch.parallel(find_loop(sch.kernel, "i"))
    assert dict(sch.trace.steps[0].arguments) == {"loop": "i"}


def test_refused_step_changes_nothing() -> None:
    sch = scheduled()
    kernel, trace = sch.kernel, sch.trace
    with pytest.raises(ScheduleError):
        sch.parallel("k")
    assert sch.kernel is kernel
    assert sch.trace is trace


def test_trace_survives_json_and_replays_identically() -> None:
    sch = scheduled()
    trace = Trace.from_json(sch.trace.to_json())
    assert trace == sch.trace
    again = replay(NESTS["gemm"], trace)
    assert again.kernel == sch.kernel
    assert again.trace == sch.trace
    assert_same(NESTS["gemm"], again.kernel, {"N": 9})
    assert [s["primitive"] for s in json.loads(sch.trace.to_json())["steps"]] == [
        *("fission", "fission", "split", "reorder", "vectorize", "parallel")
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"version": "1"}', '{"version": 1, "steps": [{"primitive": "split"}]}', '{"steps": 3}'])
def test_other_texts_are_no_traces(text: str) -> None:
    with pytest.raises(ScheduleError, match="not a schedule trace"):
        Trace.from_json(text)


def test_replay_on_another_kernel_says_which_step() -> None:
    trace = scheduled().trace
    with pytest.raises(ScheduleError, match=r"step 1 of the trace, .*fission"):
        replay(kernel_of("def f(a: i32[4]):\n    for i in range(4):\n        a[i] = 1"), trace)
    with pytest.raises(ScheduleError, match="returned io_1, ii, the trace says io, ii"):
        short = Schedule(kernel_of("def f(a: i32[4]):\n    for i in range(4):\n        a[i] = 1"))
        short.split("i", 2)
        replay(kernel_of("def f(io: i32[4]):\n    for i in range(4):\n        io[i] = 1"), short.trace)
    with pytest.raises(ScheduleError, match="unknown primitive 'spilt'"):
        replay(NESTS["gemm"], Trace.from_json(scheduled().trace.to_json().replace("split", "spilt")))


def test_diff_lists_steps() -> None:
    a, b = Schedule(NESTS["gemm"]), Schedule(NESTS["gemm"])
    for sch in (a, b):
        sch.split("i", 4, tail="guard")
    assert a.trace.diff(b.trace) == ""
    a.parallel("io")
    b.parallel("j")
    assert a.trace.diff(b.trace) == "- io = parallel(loop='io')\n+ j = parallel(loop='j')"


def test_copies_are_independent() -> None:
    a = Schedule(NESTS["gemm"])
    b = a.copy()
    b.parallel("i")
    assert len(a.trace) == 0
    assert a.kernel is NESTS["gemm"]


def test_arguments_that_are_not_data_cannot_be_recorded() -> None:
    with pytest.raises(ScheduleError, match=r"split: argument 'factor': .* cannot be recorded"):
        Schedule(NESTS["gemm"]).split("i", object())


def test_primitives_take_a_kernel_first() -> None:
    with pytest.raises(ScheduleError, match="the first parameter must be called 'kernel'"):

        @primitive
        def wrong(loop: str) -> None: ...

    assert "wrong" not in discover()


def test_a_hundred_primitives_on_a_convolution_are_fast() -> None:
    kernel = kernel_of(CONV)
    Schedule(kernel).parallel("k")  # loads isl and the primitives
    start = time.perf_counter()
    sch = Schedule(kernel)
    for _ in range(10):
        sch = Schedule(kernel)
        ko, ki = sch.split("k1", 16)
        qo, qi = sch.split("q1", 14)
        co, ci = sch.split("c", 8)
        sch.reorder("n1", ko, "p1", qo, co, "r", "s", ci, qi, ki)
        sch.vectorize(ki)
        sch.unroll(qi)
        sch.parallel(ko)
        sch.split("q", 14)
        sch.vectorize("qi")
        sch.parallel("k")
    elapsed = time.perf_counter() - start
    assert len(sch.trace) == 10
    assert elapsed < 1.0, f"100 primitives took {elapsed:.2f} s"
