"""The Dask executor: real schedulers and workers on loopback, some of which die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.runtime.recipes import Busy, kill_the_worker

from tilewright.hw import load_machine
from tilewright.hw.machine import Machine
from tilewright.ir.stmt import Kernel
from tilewright.mapping.operators import FLOAT, build_operator
from tilewright.runtime.jobs import Job, Limits, Outcome
from tilewright.runtime.records.record import host_name
from tilewright.runtime.records.task import machine_key
from tilewright.runtime.workers import Workers
from tilewright.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import RuntimeFailure

pytest.importorskip("distributed")
from tilewright.runtime.cluster import Cluster, _scheduler, open_cluster

ROOT = Path(__file__).parents[2]
HOST = machine_key(Machine.host())
KERNEL = build_operator("matmul", FLOAT, i=24, j=24, k=24)


def traces() -> list[Trace]:
    """Three schedules that work, and one that no step of works."""
    split, vectorized = Schedule(KERNEL), Schedule(KERNEL)
    split.split("i", 8)
    vectorized.reorder("k", "j")
    vectorized.vectorize("j")
    return [Trace(), split.trace, vectorized.trace, Trace(split.trace.steps * 2)]


def jobs(count: int, kernel: Kernel = KERNEL) -> list[Job]:
    return [Job(kernel, trace, "host", 1, seed) for seed in range(-(-count // 4)) for trace in traces()][:count]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Cluster]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    with Cluster(workers=2, patience=60.0) as cluster:
        yield cluster


@contextmanager
def python(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, ended with the block."""
    process = subprocess.Popen([sys.executable, *arguments], **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def scheduler(allowed_failures: int = 3) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Dask scheduler in a process of its own: its address, and the process."""
    code = f"""
        import asyncio, dask, distributed

        async def serve():
            async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
                print(scheduler.address, flush=True)
                await scheduler.finished()

        dask.config.set({{"distributed.scheduler.allowed-failures": {allowed_failures}}})
        asyncio.run(serve())
    """
    with python("-c", textwrap.dedent(code), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip(), process


@contextmanager
def worker(address: str, prelude: str = "", restart: bool = False) -> Iterator[None]:
    """A worker of ours. It runs ``prelude`` first, in which ``w`` is its module."""
    code = f"from tilewright.runtime import cluster_worker as w\n{prelude}\nw.main()"
    how = ["-m", "tilewright.runtime.cluster_worker"] if restart else ["-c", code]
    with python(*how, address, *([] if restart else ["--no-restart"])):
        yield


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def essence(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    """What of an outcome does not depend on the clock."""
    return [(o.status, o.message, o.trace, bool(o.samples)) for o in outcomes]


def test_results_are_those_of_the_local_executor(two_workers: Cluster) -> None:
    asked = jobs(8)
    heard: dict[int, Outcome] = {}
    found = two_workers.run(asked, heard.__setitem__)
    assert [heard[n] for n in range(len(asked))] == found
    assert [o.status for o in found] == ["ok", "ok", "ok", "build_error"] * 2
    assert {o.host for o in found} == {host_name()}
    together = two_workers.compare(asked[:3], rounds=3)
    with Workers(1) as local:
        assert essence(local.run(asked)) == essence(found)
        assert essence(local.compare(asked[:3], rounds=3)) == essence(together)
    assert [len(o.samples) for o in together] == [3, 3, 3]
    assert two_workers.run([]) == [] == two_workers.compare([])
    assert two_workers.width == len(os.sched_getaffinity(0)) // 2 * 2


def test_no_worker_outlives_its_tuner(tmp_path: Path) -> None:
    """Scheduler, workers, builders and measurers are gone when the tuner is killed."""
    code = """
        import sys
        from tilewright.runtime.cluster import Cluster, open_cluster
        from tests.runtime.test_cluster import jobs
        cluster = Cluster(workers=1)
        cluster.run(jobs(1))
        print(*cluster.local_processes(), flush=True)
        sys.stdin.read()
    """
    with python("-c", textwrap.dedent(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        [pid] = map(int, process.stdout.readline().split())
        family = [pid, *children(pid)]
        assert len(family) >= 3, "a worker, a builder, a measurer"
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not any(Path(f"/proc/{p}").exists() for p in family), 30)


def children(pid: int) -> list[int]:
    """Children of a process, from all its threads."""
    found = [p for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]
    return [int(p) for p in found]


def test_workers_come_go_and_offer_machines() -> None:
    """Jobs go to workers that offer their machine; one that joins late is used; none at all is an error that says who is there."""
    with scheduler() as (address, _), Cluster(address, patience=0.7) as cluster:
        with pytest.raises(
            RuntimeFailure, match=rf"has the machine {HOST} and 1 processors; workers there: none\n.*tilewright worker {address}"
        ):
            cluster.run(jobs(1))
        with worker(address):
            until(lambda: len(cluster.workers()) == 1)
            assert cluster.workers()[0].machines == {HOST}
            other = Job(KERNEL, Trace(), load_machine("x86.avx2"), 1)
            with pytest.raises(RuntimeFailure, match=rf"the machine x86.avx2:[0-9a-f]+ .*workers there: tcp://[\d.:]+: {HOST}"):
                cluster.run([other])
            with pytest.raises(RuntimeFailure, match="and 999 processors"):
                cluster.run([Job(KERNEL, Trace(), "host", 999)])
            assert cluster.run(jobs(1))[0].ok


def test_other_versions_are_refused() -> None:
    """When the tuner connects, and when a worker joins later."""
    older = "w.identity = lambda: 'Tilewright 0.0.1'"
    with scheduler() as (address, _), Cluster(address) as early, worker(address, older):
        until(lambda: len(early.workers()) == 1)
        with pytest.raises(
            RuntimeFailure, match=r"do not fit this tuner \(Tilewright .*\): tcp://[\d.:]+ has Tilewright 0.0.1\n.*same versions"
        ):
            Cluster(address)
        with pytest.raises(RuntimeFailure, match=r"the worker tcp://[\d.:]+ has Tilewright 0.0.1, the tuner has Tilewright"):
            early.run(jobs(1))


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started again by their nannies, and the job's neighbours are not blamed for it."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # recipes are in tests
    asked = [Job(KERNEL, trace, "host") for trace in (Trace(), kill_the_worker, Trace())]
    with scheduler(allowed_failures=0) as (address, _), worker(address, restart=True), Cluster(address) as cluster:
        found = cluster.run(asked)
        assert [o.status for o in found] == ["ok", "crash", "ok"]
        assert "every worker that ran it was lost" in found[1].message
        assert [o.status for o in cluster.compare(asked[1:])] == ["crash", "crash"], "who cannot be compared is not measured alone"


@pytest.mark.slow
def test_a_worker_does_one_thing_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tuners share a worker: while it builds or measures for one, it does nothing for the other."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # recipes are in tests
    log = tmp_path / "log"

    def tune(cluster: Cluster, name: str) -> list[Outcome]:
        return cluster.run([Job(KERNEL, Busy(str(log), name), "host") for _ in range(6)])

    with scheduler() as (address, _), worker(address), Cluster(address) as a, Cluster(address) as b, ThreadPoolExecutor(2) as threads:
        until(lambda: len(a.workers()) == 1)
        results = list(threads.map(tune, (a, b), "ab"))
    assert [o.status for found in results for o in found] == ["ok"] * 12
    spans = [(name, float(start), float(end)) for name, start, end in map(str.split, log.read_text().splitlines())]
    assert {name for name, _, _ in spans} == {"a", "b"}
    assert not [(x, y) for x in spans for y in spans if x[0] != y[0] and x[1] < y[2] and y[1] < x[2]]


def test_the_scheduler_is_lost() -> None:
    with scheduler() as (address, process), worker(address), Cluster(address, patience=3.0) as cluster:
        until(lambda: len(cluster.workers()) == 1)
        with pytest.raises(RuntimeFailure, match="was lost"):
            cluster.run(jobs(8), lambda index, outcome: process.kill())


def test_nothing_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RuntimeFailure, match=rf"no Dask scheduler answers at tcp://127.0.0.1:{port}\n.*dask scheduler"):
        Cluster(f"tcp://127.0.0.1:{port}", patience=1.0)
    with pytest.raises(RuntimeFailure, match="no Dask scheduler answers at nonsense"):
        Cluster("nonsense://", patience=1.0)


def test_what_is_no_address_is_said_at_once_and_leaves_nothing_behind() -> None:
    program = "from tilewright.runtime.cluster import Cluster\ntry:\n    Cluster('garbage')\nexcept Exception as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("no Dask scheduler answers at garbage") and "Traceback" not in done.stderr


def test_dask_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeFailure, match=r"Dask is not installed\n.*tilewright\[cluster\]"):
        Cluster()


def test_too_many_local_workers() -> None:
    with pytest.raises(RuntimeFailure, match="each needs a processor of its own"):
        Cluster(workers=10_000)


def test_clusters_by_name() -> None:
    with open_cluster("local") as cluster:
        assert len(cluster.workers()) == len(cluster.local_processes()) == 1
    with pytest.raises(RuntimeFailure, match="'local:two' names no cluster"):
        open_cluster("local:two")
    with pytest.raises(RuntimeFailure, match="a local cluster of 0 workers"):
        open_cluster("local:0")


def test_a_scheduler_that_is_slow_to_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    started: list[int] = []

    def late(**options: object) -> str:
        started.append(1)
        assert len(started) % 3 == 0, "its event loop was not running in time"
        return "scheduler"

    monkeypatch.setattr(distributed, "LocalCluster", late)
    with pytest.raises(RuntimeFailure, match="the scheduler of a local cluster did not start"):
        _scheduler()
    assert _scheduler() == "scheduler" and len(started) == 3


def test_jobs_that_cannot_be_sent(two_workers: Cluster) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be sent to another computer"):
        two_workers.run([Job(KERNEL, lambda kernel, machine: Schedule(kernel), "host")])


def test_limits_reach_the_workers() -> None:
    slow = build_operator("matmul", FLOAT, i=700, j=700, k=700)
    with Cluster(limits=Limits(run=0.05)) as cluster:
        assert cluster.run([Job(slow, Trace(), "host")])[0].status == "timeout"


def test_a_lost_worker_loses_no_trial(two_workers: Cluster) -> None:
    """One of two workers is killed while both have jobs: everything is done, once, and as if nothing had happened.

    The last test here: the others share the workers.
    """
    asked, heard = jobs(24), []
    processes = two_workers.local_processes()

    def done(index: int, outcome: Outcome) -> None:
        heard.append(index)
        if len(heard) == 4:
            os.kill(processes[0], signal.SIGKILL)

    found = two_workers.run(asked, done)
    assert sorted(heard) == list(range(len(asked)))
    assert [o.status for o in found] == ["ok", "ok", "ok", "build_error"] * 6
    assert len(two_workers.workers()) == 1
    assert [o.ok for o in two_workers.compare(asked[:2], rounds=2)] == [True, True]


def test_a_scheduler_that_says_nothing_of_its_workers_is_lost() -> None:
    """What the client answers while it notices that the connection is gone: not that there are no workers."""
    cluster = Cluster.__new__(Cluster)
    cluster.address, cluster._local = "tcp://10.0.0.1:8786", None
    cluster._client = SimpleNamespace(scheduler_info=lambda n_workers: {})  # type: ignore[assignment]
    with pytest.raises(RuntimeFailure, match=r"scheduler tcp://10\.0\.0\.1:8786 was lost"):
        cluster.workers()
    cluster._client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": {}})  # type: ignore[assignment]
    assert cluster.workers() == []


@pytest.mark.parametrize(
    ("address", "why"), [("nowhere", "missing port number"), ("ftp://x:1", "unknown address scheme"), ("tcp://127.0.0.1:1", "Timed out")]
)
def test_a_worker_without_a_scheduler_says_so(address: str, why: str) -> None:
    import dask

    from tilewright.runtime.cluster_worker import serve

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(RuntimeFailure, match=f"no scheduler answers at {address}: .*{why}"),
    ):
        serve(address)
