"""Processes that are killed while networks and kernels are tuned: what was recorded counts, and nothing is tried twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.tune.gemm_space import GemmSpace
from tests.tune.test_network import Local, kernels, network

from tilewright.graph import Network, compile
from tilewright.runtime.records import RecordStore
from tilewright.tune import Progress, tune
from tilewright.tune import tuner as tuning
from tilewright.tune.network import tune_network

ROOT = Path(__file__).parents[2]

#: Tells when it is in the middle of something, and stays there.
TUNER = """
    import sys, time
    from tests.tune.test_network import Local, network
    from tilewright.tune import tuner as tuning
    from tilewright.tune.network import tune_network

    records, moment = sys.argv[1:]

    def stay(*unused):
        print("there", flush=True)
        time.sleep(600)

    class Stuck(Local):
        compared = 0

        def outcome(self, job):
            if moment == "trials" and len(self.jobs) == 18:
                stay()
            return super().outcome(job)

        def compare(self, jobs, rounds=15):
            self.compared += 1
            if moment == "comparison" and self.compared == 3:
                stay()
            return super().compare(jobs, rounds)

    tuning.in_turns = stay
    tune_network(network(), records=records, trials=40, threads=1, author="random", executor=Stuck(), patience=99)
"""


def twice_as_fast(default: Network, tuned: Network, threads: int) -> tuple[list[list[float]], list[list[float]]]:
    """Every tuned kernel is, wherever the network runs it."""
    changed = [a != b for a, b in zip(kernels(default), kernels(tuned), strict=True)]
    return [[1.0] * len(changed)] * 7, [[0.5 if c else 1.0 for c in changed]] * 7


@pytest.mark.parametrize("moment", ["trials", pytest.param("comparison", marks=pytest.mark.slow), "verdict"])
def test_a_killed_network_session_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Killed among its trials; between the final comparisons of its kernels; while the network is compared as a whole."""
    records = tmp_path / "r.db"
    command = [sys.executable, "-c", textwrap.dedent(TUNER), str(records), moment]
    tuner = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert tuner.stdout is not None and tuner.stdout.readline() == "there\n"
    tuner.send_signal(signal.SIGKILL)
    tuner.wait()
    tuner.stdout.close()
    with RecordStore(records) as store:
        before, (session,) = store.records(), store.sessions()
    tried, finals = [r for r in before if r.role == "trial"], [r for r in before if r.role == "final"]
    assert session.state == "running"
    assert (0 < len(tried) < 40, bool(finals)) == (moment == "trials", moment != "trials")
    monkeypatch.setattr(tuning, "in_turns", twice_as_fast)
    again = Local()
    found = tune_network(network(), records=records, trials=40, threads=1, author="random", executor=again, patience=99)
    assert found.session == session.id and len(again.jobs) == 40 - len(tried) + 3  # schedules without tuning are measured again
    assert found.verdict is not None and found.verdict.kept and found.reason == "trials"
    with RecordStore(records) as store:
        after = store.records()
        assert after[: len(before)] == before and [s.state for s in store.sessions()] == ["done"]
        points = [(r.task.key, str(r.point)) for r in after if r.role == "trial"]
        assert len(points) == len(set(points)) == 40
    assert kernels(compile(network(), threads=1, records=records)) == kernels(found.network)


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_costs_no_trial_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler and two workers on loopback, of which one is killed when some trials are recorded and others under way."""
    pytest.importorskip("distributed")
    from tilewright.runtime.cluster import Cluster

    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # the space is sent by name
    with Cluster(workers=2) as cluster, RecordStore(tmp_path / "r.db") as store:

        def progress(p: Progress) -> None:
            if p.trials == 4:
                os.kill(cluster.local_processes()[0], signal.SIGKILL)

        found = tune(GemmSpace.of(), trials=16, author="random", executor=cluster, records=store, progress=progress)
        assert len(cluster.workers()) == 1
        trials = store.records(role="trial")
    points = [str(r.point) for r in trials]
    assert len(points) == len(set(points)) == 16 == len(found.history) - 1
    assert {r.status for r in trials} == {"ok"} and found.reason == "trials" and found.confirmed
