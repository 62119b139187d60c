"""Records as a search leaves them, with times from a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tilewright.hw import load_machine
from tilewright.mapping.operators import FLOAT, build_operator
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.runtime.records.session import sitting
from tilewright.schedule import Schedule


def matmul(i: int = 32, threads: int = 1) -> Task:
    """A task: i x 64 x 64."""
    return Task.of(build_operator("matmul", FLOAT, i=i, j=64, k=64), load_machine("x86.avx2"), threads)


def trace_of(task: Task) -> str:
    """Some schedule."""
    schedule = Schedule(task.kernel())
    schedule.simplify()
    return schedule.trace.to_json()


def search(
    task: Task, session: str, *, trials: int, author: str = "xgb", seed: int = 0, failed: int = 0, finals: bool = True
) -> list[Record]:
    """Baseline, ``trials`` of which the first ``failed`` did not work, and final measurements of two candidates."""
    rng = np.random.default_rng(seed)
    said = {"author": author, "seed": seed, "session": session}
    trace = trace_of(task)
    out = [Record(task, "ok", (2e-3, 2.2e-3), trace, {"tile": 0}, estimate=1.5e-3, role="baseline", **said)]
    for n in range(trials):
        point = {"sketch": "rows", "knobs": {"tile": n + 1}}
        if n < failed:
            out.append(Record(task, "wrong", (), trace, point, f"c[0, 0] is off by {n % 2}\nmore", 1e-3, **said))
            continue
        seconds = float(2e-3 * np.exp(rng.normal(0.2, 0.4)))
        out.append(Record(task, "ok", (seconds, seconds * 1.1), trace, point, "", seconds * float(np.exp(rng.normal(0, 0.1))), **said))
    timed = [r for r in out if r.role == "trial" and r.seconds]
    if finals and timed:
        best = min(timed, key=lambda r: r.seconds or 0.0)
        out.append(Record(task, "ok", (2.1e-3, 2.3e-3), trace, {"tile": 0}, role="final", **said))
        out.append(Record(task, "ok", ((best.seconds or 0.0) * 1.02, 2.2e-3), trace, best.point, role="final", **said))
    return out


def filled(path: Path, *, tasks: int = 3, trials: int = 30, failed: int = 2, subject: str = "model.onnx") -> RecordStore:
    """A store with one finished session: kernel n is called n + 1 times."""
    store = RecordStore(path)
    known = [matmul(32 * (n + 1)) for n in range(tasks)]
    store.add_tasks(known)
    weights = {t.key: float(n + 1) for n, t in enumerate(known)}
    sittings = [{**sitting(2), "load": load} for load in (0.25, 3.5)]
    session = store.save(Session(subject, weights, "xgb", 0, trials=tasks * trials, state="done", sittings=tuple(sittings)))
    store.add(*(r for n, t in enumerate(known) for r in search(t, session.id, trials=trials, failed=failed, seed=n)))
    return store
