"""Workers survive whatever candidates do, say what it was, and lose nothing."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.faulty import Body, Greedy, Kill, OuterParallel, Plain, Raises, Sleep, SlowToBuild, long_program, program

from tilewright.hw import Machine, load_machine
from tilewright.runtime.jobs import Job, Limits, Outcome, Recipe
from tilewright.runtime.memory import ALIGNMENT, NUMPY_OFFSET
from tilewright.runtime.module import build
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.signature import signature
from tilewright.runtime.trial import Data, bind, make_data, placed, sample
from tilewright.runtime.workers import Workers, require_measurable
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import RuntimeFailure

LIMITS = Limits(build=3.0, run=1.5, memory=1 << 30)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(limits=LIMITS) as w:
        yield w


def job(trace: Trace | Recipe, **options: int) -> Job:
    return Job(program(), trace, **options)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_trace_and_a_recipe_are_built_verified_and_timed(workers: Workers) -> None:
    sch = Schedule(program())
    sch.vectorize(sch.split("j", 16)[1])
    by_trace, by_recipe = workers.run([job(sch.trace), job(Plain(16))])
    for o in (by_trace, by_recipe):
        assert o.ok and o.seconds == min(o.samples) and len(o.samples) >= 5 and 1e-8 < o.seconds < 0.1
        assert o.trace is not None and o.trace.steps == sch.trace.steps
        assert o.build_seconds > 0 and o.run_seconds > 0


def test_every_fault_is_an_outcome_and_its_neighbours_are_unharmed(workers: Workers) -> None:
    faults: list[tuple[Recipe, str, str]] = [
        (Body("wrong"), "wrong", "expected"),
        (Body("incomplete"), "wrong", "64 of 4096 elements"),
        (Body("hangs"), "timeout", "1.5 s"),
        (Body("segfault"), "crash", "SIGSEGV"),
        (Body("hoard"), "memory", "more memory"),
        (Kill(signal.SIGSEGV), "crash", "SIGSEGV while it was built"),
        (Kill(signal.SIGKILL), "crash", "SIGKILL while it was built"),
        (Sleep(), "timeout", "3 s while it was built"),
        (Greedy(), "memory", "more memory"),
        (Raises(), "build_error", "KeyError: 'no such loop'"),
    ]
    jobs = [job(r) for recipe, _, _ in faults for r in (recipe, Plain(16))]
    heard: dict[int, Outcome] = {}
    outcomes = workers.run(jobs, heard.__setitem__)
    assert [heard[n] for n in range(len(jobs))] == outcomes
    for (recipe, status, message), o in zip(faults, outcomes[::2], strict=True):
        assert o.status == status and message in o.message, (recipe, o)
        assert o.samples == () and o.seconds == float("inf")
    assert all(o.ok for o in outcomes[1::2])


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_threads_of_a_trial_run_side_by_side(workers: Workers) -> None:
    """Also in the first milliseconds of the process: two threads are faster than one, in one of three tries where others compute, too."""
    ratios = []
    for _ in range(3):
        one, two = workers.run([Job(long_program(), OuterParallel(), threads=n) for n in (1, 2)])
        assert one.ok and two.ok
        ratios.append(two.seconds / one.seconds)
        if ratios[-1] < 0.8:
            return
    pytest.fail(f"two threads took {ratios} times the time of one")


def test_refused_steps_are_build_errors(workers: Workers) -> None:
    sch = Schedule(program())
    sch.split("j", 16)
    (o,) = workers.run([Job(program().with_(name="other"), Trace((*sch.trace.steps, *sch.trace.steps)))])
    assert o.status == "build_error" and "step 2" in o.message


def test_a_builder_killed_from_outside_costs_no_job(workers: Workers, tmp_path: Path) -> None:
    (o,) = workers.run([job(Kill(signal.SIGKILL, str(tmp_path / "once")))])
    assert o.ok


def test_killed_idle_workers_are_replaced(workers: Workers) -> None:
    workers.run([job(Plain()), job(Plain())])
    before = workers.processes()
    assert len(before) == workers.width + 1
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert all(o.ok for o in workers.run([job(Plain()), job(Plain(16)), job(Plain(8))]))
    assert not set(before) & set(workers.processes())


def test_killing_the_measurer_during_a_run_costs_no_job(workers: Workers) -> None:
    workers.run([job(Plain()), job(Plain())])
    killed = []

    def kill(index: int, outcome: Outcome) -> None:
        if not killed:
            killed.append(workers.processes()[-1])
            os.kill(killed[0], signal.SIGKILL)

    outcomes = workers.run([job(Plain(n)) for n in (4, 8, 16)], kill)
    assert killed and all(o.ok for o in outcomes)


def test_candidates_do_not_accumulate_in_the_measurer(workers: Workers) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{workers.processes()[-1]}/statm").read_text().split()[1])

    workers.run([job(Plain(16))] * 3)
    before = resident()
    workers.run([job(Plain(16))] * 20)
    assert resident() - before < 500  # pages


@pytest.mark.skipif(len(available_cpus()) < 2, reason="needs two processors")
def test_compare_on_several_threads(workers: Workers) -> None:
    """Each thread has a processor of its own, and so many processors there are for all."""
    outcomes = workers.compare([job(OuterParallel(), threads=2), job(Plain(16), threads=2)], rounds=5)
    assert [o.status for o in outcomes] == ["ok", "ok"], outcomes
    assert [len(o.samples) for o in outcomes] == [5, 5]


@pytest.mark.parametrize("unaligned", [(), ("x",), ("x", "y")])
def test_arguments_of_candidates_are_where_callers_have_theirs(unaligned: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process sends lies anywhere; vectors that cross cache lines take longer to load."""
    kernel = program()
    data = make_data(kernel, 0)
    sent = pickle.loads(pickle.dumps(data))
    moved = placed(Data({n: shifted(a) for n, a in sent.inputs.items()}, sent.expected), unaligned)
    assert moved.inputs.keys() == data.inputs.keys()
    for name, array in moved.inputs.items():
        assert array.ctypes.data % 64 == (16 if name in unaligned else 0) and np.array_equal(array, data.inputs[name])
    bound = bind(build(kernel, threads=1), moved)
    places = {p.name: address % 64 for p, address in zip(signature(kernel).parameters, bound.arguments, strict=True)}
    assert places == {name: 16 if name in unaligned else 0 for name in places} and set(places) >= set(unaligned)


def shifted(a: np.ndarray) -> np.ndarray:
    """The same 16 bytes behind a multiple of 64."""
    raw = np.empty(a.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + 16
    out = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def test_compare_uses_equal_rounds_and_names_who_fails(workers: Workers) -> None:
    jobs = [job(Plain()), job(Plain(16)), job(Body("wrong")), job(Raises())]
    slow, fast, wrong, broken = workers.compare(jobs, rounds=9)
    assert len(slow.samples) == len(fast.samples) == 9
    assert (wrong.status, broken.status) == ("wrong", "build_error") and not wrong.samples
    assert workers.compare([]) == []


def test_interrupting_a_run_ends_its_workers_and_leaves_the_executor_usable() -> None:
    def interrupt(index: int, outcome: Outcome) -> None:
        raise KeyboardInterrupt

    with Workers(1, LIMITS) as w:
        with pytest.raises(KeyboardInterrupt):
            w.run([job(Plain(4)), job(Plain(8))], interrupt)
        assert w.processes() == []
        assert w.run([job(Plain(4))])[0].ok
        pids = w.processes()
    assert pids and not any(map(alive, pids))


def test_workers_and_candidates_end_with_a_killed_tuner(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        from tests.runtime.faulty import Body, Plain, program
        from tilewright.runtime.workers import Job, Limits, Workers
        w = Workers(1, Limits(run=300))
        w.run([Job(program(), Plain())])
        print(*w.processes(), flush=True)
        w.run([Job(program(), Body("hangs"))])
    """)
    tuner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert tuner.stdout is not None
    pids = [int(p) for p in tuner.stdout.readline().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while not (hanging := children(pids[1])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert hanging
    tuner.kill()
    tuner.wait()
    tuner.stdout.close()
    while any(map(alive, [*pids, *hanging])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, [*pids, *hanging]))


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_what_cannot_be_asked_is_refused(workers: Workers) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be sent to a worker process"):
        workers.run([Job(program(), lambda kernel, machine: Schedule(kernel, machine))])
    with pytest.raises(RuntimeFailure, match=r"\d+ threads with \d+ processors"):
        workers.run([job(Plain(), threads=len(available_cpus()) + 1)])
    with pytest.raises(RuntimeFailure, match="0 builders"):
        Workers(0)


@pytest.mark.parametrize(("name", "lacking"), [("cuda.sm80", "nvptx64"), ("gemmini", "riscv64")])
def test_machines_that_are_elsewhere_are_not_measured_here(name: str, lacking: str) -> None:
    with pytest.raises(RuntimeFailure, match=f"a trial for machine {name} is compiled for {lacking}") as refused:
        require_measurable(load_machine(name), 1)
    assert "simulator" in (refused.value.hint or "")


def test_machines_that_are_only_emulated_are_said_to_be(recwarn: pytest.WarningsRecorder) -> None:
    require_measurable(Machine.host(), 1)
    assert not recwarn
    with pytest.warns(RuntimeWarning, match=r"machine virtual\.gemv names no target: .* what is measured is the emulation"):
        require_measurable(load_machine("virtual.gemv"), 1)


def test_hopeless_candidates_are_timed_once() -> None:
    calls = []
    sample(lambda: (time.sleep(0.002), calls.append(1)), bar=1e-4)
    assert len(calls) == 3  # one to warm up
    assert len(sample(lambda: time.sleep(0.002), bar=0.002)) >= 5
    assert len(sample(lambda: np.zeros(4))) >= 5


def test_what_took_too_long_to_build_is_not_built_again(tmp_path: Path) -> None:
    """A worker that dies gets its job a second time, but not when it died of the job's own time limit."""
    with Workers(builders=1, limits=Limits(build=1.0)) as workers:
        [outcome] = workers.run([job(SlowToBuild(tmp_path / "log"))])
    assert outcome.status == "timeout" and "while it was built" in outcome.message
    assert (tmp_path / "log").read_text() == "asked\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="where large arrays begin is the C library's affair")
def test_numpy_s_large_arrays_begin_where_trials_of_operators_have_them() -> None:
    # In a process of its own: what a process freed before may be used again, from any multiple of 16 bytes.
    script = "import numpy as np; print([np.empty(n << 20, np.float32).ctypes.data % int(input()) for n in (9, 16, 33)])"
    printed = subprocess.run([sys.executable, "-c", script], input=f"{ALIGNMENT}\n" * 3, capture_output=True, text=True, check=True).stdout
    assert printed == f"{[NUMPY_OFFSET] * 3}\n"


@pytest.mark.parametrize(("beyond", "kept"), [(1 << 30, False), (1 << 40, True)])
def test_a_limit_that_the_user_set_stays_the_most(beyond: int, kept: bool) -> None:
    """A shell or batch system that allows so much address space must not keep workers from starting."""
    code = (
        "import resource\nfrom tilewright.runtime.serve import limit_memory\nresource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 37))\n"
        f"limit_memory({beyond})\nprint(*resource.getrlimit(resource.RLIMIT_AS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    soft, hard = map(int, done.stdout.split())
    assert hard == 1 << 37 and (soft == hard if kept else beyond < soft < 1 << 36)
