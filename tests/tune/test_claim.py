"""A session is worked on by one process at a time, and says under which conditions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from tests.cli.command import tilewright
from tests.tune.gemm_space import GemmSpace
from tests.tune.simulated import Simulated

from tilewright.runtime.records import RecordStore
from tilewright.runtime.records.lock import Lock
from tilewright.tune import tune
from tilewright.util.errors import RuntimeFailure, TuneError

#: Tells when it is about to try its eighth point, and stays there.
TUNER = """
    import sys, time
    from tests.tune.gemm_space import GemmSpace
    from tests.tune.simulated import Simulated
    from tilewright.tune import tune

    def before(n):
        if n == 8:
            print("there", flush=True)
            time.sleep(600)

    tune(GemmSpace.of(), trials=20, author="random", executor=Simulated(before=before), records=sys.argv[1])
"""


@pytest.fixture(scope="module")
def space() -> GemmSpace:
    return GemmSpace.of()


def test_a_session_that_runs_is_left_alone_and_a_killed_one_taken_over(space: GemmSpace, tmp_path: Path) -> None:
    records = tmp_path / "r.db"
    command = [sys.executable, "-c", textwrap.dedent(TUNER), str(records)]
    first = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "there\n"
        second = Simulated()
        with pytest.raises(TuneError, match=rf"gemm is being tuned .*: session \S+, process {first.pid} on ") as refused:
            tune(space, trials=20, author="random", executor=second, records=records)
        assert not second.asked and "wait for it" in (refused.value.hint or "")
        with RecordStore(records) as store:
            assert len(store.sessions()) == 1 and store.count() == 8
        tune(space, trials=5, author="random", seed=1, executor=Simulated(), records=records)  # another request is none of its business
        os.kill(first.pid, signal.SIGSTOP)  # it does not run, but it may at any time
        with pytest.raises(TuneError, match="is being tuned"):
            tune(space, trials=20, author="random", executor=second, records=records)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    tune(space, trials=20, author="random", executor=second, records=records)
    with RecordStore(records) as store:
        by_seed = {s.seed: s for s in store.sessions()}
        assert len(by_seed) == 2 and by_seed[0].state == "done"
        assert [x["pid"] for x in by_seed[0].sittings] == [first.pid, os.getpid()]


@pytest.mark.parametrize("end", ["done", "failed", "refused"])
def test_a_session_that_has_ended_is_free(space: GemmSpace, tmp_path: Path, end: str) -> None:
    records = tmp_path / "r.db"
    if end == "done":
        tune(space, trials=3, author="random", executor=Simulated(), records=records)
    else:
        with pytest.raises(ZeroDivisionError if end == "failed" else TuneError):
            before = (lambda n: 1 // 0) if end == "failed" else (lambda n: None)
            tune(space, trials=3, author="random" if end == "failed" else "genius", executor=Simulated(before=before), records=records)
    tune(space, trials=3, author="random", executor=Simulated(), records=records)


def test_locks_are_of_one_holder_even_within_a_process(tmp_path: Path) -> None:
    path = tmp_path / "r.db-lock"
    first = Lock.taken(path, "a")
    assert first is not None and Lock.taken(path, "a") is None
    other = Lock.taken(path, "b")
    assert other is not None
    other.release()
    assert Lock.taken(path, "a") is None, "giving one back, and closing the file, keeps the other"
    first.release()
    first.release()
    assert Lock.taken(path, "a") is not None
    with pytest.raises(RuntimeFailure, match="cannot lock"):
        Lock.taken(tmp_path / "nowhere" / "r.db-lock", "a")


def test_conditions_are_kept_and_shown(space: GemmSpace, tmp_path: Path) -> None:
    tune(space, trials=3, author="random", executor=Simulated(), records=tmp_path / "r.db")
    with RecordStore(tmp_path / "r.db") as store:
        [session] = store.sessions()
    [x] = session.sittings
    assert (x["load"], x["threads"], x["processors"]) == (0.5, 1, len(os.sched_getaffinity(0)))
    shown = tilewright("records", "show", session.id, "--records", str(tmp_path / "r.db")).output
    assert "load average 0.5 before" in shown and x["processor"] in shown and x["versions"]["tilewright"] in shown


@pytest.mark.parametrize(("load", "warned"), [(1.9, False), (2.1, True)])
def test_a_busy_computer_is_warned_of(space: GemmSpace, monkeypatch: pytest.MonkeyPatch, load: float, warned: bool) -> None:
    """The simulated executor builds two at once."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tune(space, trials=3, author="random", executor=Simulated())
    said = [str(w.message) for w in seen if "load average" in str(w.message)]
    assert len(said) == warned and all("is 2.1 before a session that uses 2 processors" in text for text in said)
