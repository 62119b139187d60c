"""Records of schedules that this version cannot make: said once, with the way out, and everything else goes on."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tests.tune.gemm_space import gemm
from tests.tune.test_network import Stub, kernels, network

from tilewright.graph import compile, load
from tilewright.graph.compiler import prepare
from tilewright.hw import Machine
from tilewright.runtime.records import Record, RecordStore, Task
from tilewright.schedule.trace import Step, Trace
from tilewright.space import Space
from tilewright.tune import tune
from tilewright.tune.network import tune_network

GONE = Trace((Step("vanish", (), ()),)).to_json()


def other_sketch(r: Record) -> dict[str, str]:
    assert r.point is not None
    return {"point": json.dumps({**r.point, "sketch": "as it was called once"})}


def other_values(r: Record) -> dict[str, str]:
    """The decoder would take the nearest point: another schedule than the one that was measured."""
    assert r.point is not None
    return {"point": json.dumps({**r.point, "knobs": {k: v + 1 for k, v in r.point["knobs"].items()}})}


def change(store: RecordStore, record: Record, changes: dict[str, str]) -> None:
    """As if another version had written ``record``."""
    marks = ", ".join(f"{column} = ?" for column in changes)
    store._connection().execute(f"UPDATE records SET {marks} WHERE uid = ?", (*changes.values(), record.uid))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_sketch, "has no sketch 'as it was called once'"),
        (other_values, "is no longer in the space"),
        (lambda r: {"point": "{}"}, "not an encoded point"),
        (lambda r: {"trace": GONE}, "there is no primitive vanish"),
        (lambda r: {"trace": "{not a trace"}, "not a schedule trace"),
    ],
)
def test_a_trial_that_is_no_point_any_more_is_named_and_made_again(
    tmp_path: Path, damage: Callable[[Record], dict[str, str]], reason: str
) -> None:
    space, how = Space(gemm(), Machine.host(), threads=1), {"trials": 8, "author": "random"}
    with RecordStore(tmp_path / "r.db") as store:
        tune(space, executor=Stub(), records=store, **how)  # type: ignore[arg-type]
        lost = store.records(role="trial")[1:4]
        for r in lost:
            change(store, r, damage(r))
        again = Stub()
        with pytest.warns(
            RuntimeWarning, match=rf"record {lost[0].uid[:10]} of gemm .*{re.escape(reason)}.*tune with what made it"
        ) as warned:
            found = tune(space, executor=again, records=store, **how)  # type: ignore[arg-type]
        assert len(warned) == 1 and len(found.history) == 9 and found.reason == "trials"
        assert len(again.jobs) == 1 + 3, "without tuning, and the lost ones"


def lose_winner(store: RecordStore, key: str) -> Record:
    """The steps of a task's best schedule mean nothing any more."""
    best = store.best(key)
    assert best is not None and best.winner
    for r in store.records(key):
        if r.trace == best.trace:
            change(store, r, {"trace": GONE})
    return best


def test_the_next_best_is_compiled_when_the_best_cannot_be_made(tmp_path: Path) -> None:
    model = network()
    with RecordStore(tmp_path / "r.db") as store:
        found = tune_network(model, records=store, trials=40, threads=1, author="random", executor=Stub(), patience=99)
        (twice,) = (t.task for t in found.tasks if t.weight == 2)
        place = 1  # of its first call
        default, best = kernels(compile(model, threads=1))[place], kernels(found.network)[place]
        lost = lose_winner(store, twice.key)
        with pytest.warns(RuntimeWarning, match=rf"record {lost.uid[:10]} of .*unknown primitive 'vanish'.*Tune again") as warned:
            later = compile(model, threads=1, records=store)
        assert len(warned) == 1
        assert kernels(later)[place] not in (default, best) and later.summary()[place].schedule.startswith("tuned")
        # Found again, it is used whatever gain the old record claims.
        with pytest.warns(RuntimeWarning, match="is passed over"):
            again = tune_network(model, records=store, trials=60, threads=1, author="random", seed=1, executor=Stub(), patience=99)
        assert again.network.summary()[place].schedule.startswith("tuned") and kernels(again.network)[place] != default


def test_a_default_that_won_is_today_s_default_when_its_record_is_stale(tmp_path: Path) -> None:
    model = network()
    with RecordStore(tmp_path / "r.db") as store:
        found = tune_network(model, records=store, trials=40, threads=1, author="random", executor=Stub(), patience=99)
        (twice,) = (t.task for t in found.tasks if t.weight == 2)
        best = store.best(twice)
        assert best is not None
        kept: dict[str, Any] = {"role": "final", "winner": True, "gain": 1.0, "host": best.host}
        store.add(Record(twice, "ok", (1.0,), GONE, {}, against="d", uid="d", **kept), Record(twice, "ok", (2.0,), best.trace, best.point,
                  role="final", against="d", host=best.host))  # fmt: skip
        with pytest.warns(RuntimeWarning, match="record d of"):
            later = compile(model, threads=1, records=store)
        assert kernels(later)[1] == kernels(compile(model, threads=1))[1] != kernels(found.network)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(model, threads=1)


def test_records_without_steps_are_skipped(tmp_path: Path) -> None:
    """A record may say how fast a schedule was and not which: the next best is compiled, without a warning."""
    prepared = prepare(load(network()), threads=1)
    with RecordStore(tmp_path / "r.db") as store:
        tune_network(network(), records=store, trials=40, threads=1, author="random", executor=Stub(), patience=99)

        class Preceded:
            def ranked(self, task: Task) -> Iterator[Record]:
                return chain([Record(task, "ok", (1e-9,))], store.ranked(task))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            later = prepared.compile(records=Preceded())
        assert kernels(later) == kernels(prepared.compile(records=store)) != kernels(prepared.compile())
