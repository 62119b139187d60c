"""Tuning networks against a stub that knows how long each point takes: rounds, records, budgets, the compiled result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import Network, compile
from tilewright.hw import Machine, load_machine
from tilewright.ir.expr import compare
from tilewright.ir.stmt import Kernel
from tilewright.runtime.jobs import Done, Job, Outcome
from tilewright.runtime.records import RecordStore, Session
from tilewright.runtime.workers import Workers
from tilewright.schedule.schedule import Schedule
from tilewright.space import Context, Knob, Sketch, Space, discover
from tilewright.tune import tuner as tuning
from tilewright.tune.ledger import Ledger
from tilewright.tune.network import Model, tune_network, tune_networks
from tilewright.tune.results import NetworkProgress
from tilewright.util.errors import ImportFailure, RuntimeFailure, TuneError
from tilewright.util.quantities import seconds_text


class Stub:
    """An executor that schedules, but takes times from a formula: the point's columns decide, big kernels take longer."""

    width = 1

    def __init__(self, stop_after: int | None = None):
        self.jobs: list[Job] = []
        self.stop_after = stop_after

    def run(self, jobs: Sequence[Job], done: Done | None = None) -> list[Outcome]:
        out = []
        for n, job in enumerate(jobs):
            if self.stop_after is not None and len(self.jobs) >= self.stop_after:
                raise KeyboardInterrupt
            self.jobs.append(job)
            out.append(self.outcome(job))
            if done:
                done(n, out[-1])
        return out

    def outcome(self, job: Job) -> Outcome:
        assert not isinstance(job.trace, str)
        assert isinstance(job.machine, Machine)
        point = job.trace.point  # type: ignore[union-attr]
        seconds = 1e-9 * sum(b.nbytes for b in job.kernel.args) * (1 + sum(v * (k + 1) for k, v in enumerate(point)) % 17)
        return Outcome("ok", (seconds, seconds), trace=job.trace(job.kernel, job.machine).trace)  # type: ignore[operator]

    def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
        return [self.outcome(j) for j in jobs]

    def close(self) -> None:
        pass


def network(layers: int = 3, width: int = 24) -> ModelProto:
    """Equal dense layers with a wider one at the end: two distinct kernels, the first ``layers`` times.

    Three tasks: the first layer takes the caller's array, which need not be aligned.
    """
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((width, width)).astype(np.float32) for _ in range(layers)]
    weights.append(rng.standard_normal((width, 3 * width)).astype(np.float32))
    nodes, x = [], "x"
    for k in range(layers + 1):
        nodes += [helper.make_node("MatMul", [x, f"w{k}"], [f"m{k}"]), helper.make_node("Relu", [f"m{k}"], [f"r{k}"])]
        x = f"r{k}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "layers", [value("x", TensorProto.FLOAT, [8, width])], [value(x, TensorProto.FLOAT, [8, 3 * width])],
        [numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_kernels_are_tuned_once_and_the_network_runs_with_the_best(tmp_path: Path) -> None:
    seen: list[NetworkProgress] = []
    stub, model = Stub(), network()
    found = tune_network(
        model, records=tmp_path / "r.db", trials=40, threads=1, author="random", executor=stub, progress=seen.append, patience=99
    )
    assert sorted((t.operators, t.weight) for t in found.tasks) == [("MatMul+Relu", 1), ("MatMul+Relu", 1), ("MatMul+Relu", 2)]
    (first,) = (t.task for t in found.tasks if t.task.unaligned)
    assert len(first.unaligned) == 1 and {j.unaligned for j in stub.jobs} == {(), first.unaligned}
    assert sum(t.trials for t in found.tasks) == 40
    assert all(t.seconds <= t.baseline for t in found.tasks)
    assert all(t.confirmed and t.gain == pytest.approx(t.baseline / t.seconds) for t in found.tasks)
    assert found.seconds == pytest.approx(sum(t.weight * t.seconds for t in found.tasks))
    assert [p.trials for p in seen] == sorted(p.trials for p in seen)
    assert seen[-1].seconds <= seen[-1].baseline
    x = np.random.default_rng(1).standard_normal((8, 24)).astype(np.float32)
    for compiled in (found.network, compile(model, threads=1, records=tmp_path / "r.db")):
        assert all(row.schedule.startswith("tuned") for row in compiled.summary())
        (got,), (want,) = compiled({"x": x}).values(), onnxruntime_outputs(model, {"x": x}).values()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert not any(row.schedule.startswith("tuned") for row in compile(model, threads=1).summary())


def test_best_record_is_what_is_compiled(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        found = tune_network(network(), records=store, trials=30, threads=1, author="random", executor=Stub())
        for t in found.tasks:
            best = store.best(t.task)
            assert best is not None
            assert best.seconds == pytest.approx(t.seconds)
            assert f"tuned: {seconds_text(t.seconds)} by random" in [r.schedule for r in found.network.summary()]
        (session,) = store.sessions(subject="layers")
        assert session.id == found.session
        assert session.state == "done"
        assert dict(session.tasks) == {t.task.key: float(t.weight) for t in found.tasks}


class DefaultsWin(Stub):
    """Nothing is faster than what is asked for first of each kernel: its schedule without tuning."""

    def outcome(self, job: Job) -> Outcome:
        first = next(j for j in self.jobs if (j.kernel, j.unaligned) == (job.kernel, job.unaligned))
        found = super().outcome(job)
        return replace(found, samples=(1e-5,) * 2 if job.trace == first.trace else (2e-5,) * 2)


def test_kernels_that_nothing_beats_are_not_said_to_be_tuned(tmp_path: Path) -> None:
    found = tune_network(network(), records=tmp_path / "r.db", trials=12, threads=1, author="random", executor=DefaultsWin())
    assert all(t.seconds == t.baseline for t in found.tasks)
    for compiled in (found.network, compile(network(), threads=1, records=tmp_path / "r.db")):
        assert {row.schedule for row in compiled.summary()} == {"as without tuning: 10.0 us"}


def test_interrupted_tuning_goes_on_where_it_was(tmp_path: Path) -> None:
    path, first, second = tmp_path / "r.db", Stub(stop_after=18), Stub()
    stopped = tune_network(network(), records=path, trials=40, threads=1, author="random", executor=first)
    assert 0 < sum(t.trials for t in stopped.tasks) < 40
    assert not any(t.confirmed for t in stopped.tasks)
    assert "not confirmed" in " ".join(row.schedule for row in stopped.network.summary())
    resumed = tune_network(network(), records=path, trials=40, threads=1, author="random", executor=second, patience=99)
    assert resumed.session == stopped.session
    assert sum(t.trials for t in resumed.tasks) == 40
    trials = [j for j in second.jobs if j.trace.point]  # type: ignore[union-attr]
    assert len(trials) <= 40 - sum(t.trials for t in stopped.tasks) + 3  # baselines are measured again
    with RecordStore(path) as store:
        assert [s.state for s in store.sessions(subject="layers")] == ["done"]


def test_rounds_in_turns_are_equal(tmp_path: Path) -> None:
    found = tune_network(
        network(), records=tmp_path / "r.db", trials=90, threads=1, author="random", executor=Stub(), patience=1, scheduler="turns"
    )
    assert [t.trials for t in found.tasks] == [30, 30, 30]


def test_recorded_trials_of_one_kernel_do_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    tune_network(network(), records=path, trials=60, threads=1, author="random", executor=Stub(), patience=99, scheduler="turns")
    again = Stub()
    found = tune_network(network(), records=path, trials=20, threads=1, author="random", executor=again)
    assert [t.trials for t in found.tasks] == [20, 20, 20]
    assert len(again.jobs) == 3  # the schedules without tuning


def test_interrupting_the_final_comparison_keeps_the_best_so_far(tmp_path: Path) -> None:
    class Impatient(Stub):
        def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
            raise KeyboardInterrupt

    path, model = tmp_path / "r.db", network()
    found = tune_network(model, records=path, trials=30, threads=1, author="random", executor=Impatient())
    assert all(t.seconds <= t.baseline for t in found.tasks) and any(t.seconds < t.baseline for t in found.tasks)
    assert all(row.schedule.startswith("tuned") for row in found.network.summary())
    with RecordStore(path) as store:
        assert [s.state for s in store.sessions(subject="layers")] == ["stopped"]
    resumed = tune_network(model, records=path, trials=30, threads=1, author="random", executor=Stub())
    assert resumed.session == found.session and sum(t.trials for t in resumed.tasks) == 30


def test_goal_ends_the_search(tmp_path: Path) -> None:
    stub = Stub()
    found = tune_network(network(), records=tmp_path / "r.db", trials=500, threads=1, author="random", executor=stub, goal=1.0)
    assert sum(t.trials for t in found.tasks) == 0


def test_budgets_too_small_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="too small to measure anything"):
        tune_network(network(), records=tmp_path / "r.db", trials=0, executor=Stub())
    with pytest.raises(TuneError, match="no scheduler 'fair'"):
        tune_network(network(), records=tmp_path / "r.db", trials=1, executor=Stub(), scheduler="fair")
    with pytest.raises(TuneError, match="nothing was measured within the budget"):
        tune_network(network(), records=tmp_path / "r.db", seconds=1e-9, executor=Stub())


def test_when_every_candidate_fails_the_reason_is_said(tmp_path: Path) -> None:
    class Broken(Stub):
        def outcome(self, job: Job) -> Outcome:
            return Outcome("crash", message="exited with status 1 (no such linker) while it was built")

    with pytest.raises(TuneError, match=r"no candidate for .* works \(.* crash\): exited with status 1 \(no such linker\)"):
        tune_network(network(), records=tmp_path / "r.db", trials=4, executor=Broken())


def test_a_budget_for_first_measurements_only_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=10)
    monkeypatch.setattr("tilewright.tune.tuner.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(TuneError, match="1 of 3 kernels were measured as they are without tuning, and no candidate") as refused:
        tune_network(network(), records=tmp_path / "r.db", seconds=15, threads=1, executor=Stub())
    assert refused.value.hint is not None and refused.value.hint.startswith("give at least")
    with RecordStore(tmp_path / "r.db") as store:
        assert store.count() == 1  # it is not lost


def test_a_network_that_was_not_measured_has_not_reached_its_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget ends after the first kernel, of which trials are recorded."""
    tune_network(network(), records=tmp_path / "r.db", trials=30, threads=1, author="random", executor=Stub())
    clock = count(step=10)
    monkeypatch.setattr("tilewright.tune.tuner.time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = tune_network(network(), records=tmp_path / "r.db", seconds=15, goal=1.0, threads=1, author="random", executor=Stub())
    assert found.reason == "seconds" and len(found.tasks) == 1


def test_kernels_without_a_space_run_as_the_default_has_them(tmp_path: Path) -> None:
    def only_small(context: Context) -> list[Sketch]:
        return [] if wide(context.kernel) else [s for r in discover() for s in r(context)]

    found = tune_network(network(), records=tmp_path / "r.db", trials=20, threads=1, author="random", executor=Stub(), rules=[only_small])
    assert sorted(t.weight for t in found.tasks) == [1, 2]
    schedules = [r.schedule for r in found.network.summary()]
    assert all(s.startswith("tuned") for s in schedules[:3])
    assert not schedules[3].startswith("tuned")
    (skipped,) = found.skipped
    assert (skipped.operators, skipped.weight) == ("MatMul+Relu", 1) and "no rule has a schedule for matmul_relu" in skipped.reason


def wide(kernel: Kernel) -> bool:
    """Whether it is the last one of :func:`network`."""
    return kernel.args[-1].static_shape[-1] > 24


def tall(context: Context) -> list[Sketch]:
    """Asks for rows that cannot be."""
    rows = Knob("rows", (8, 16))
    return [Sketch("tall", (rows,), (compare("<=", rows.var, 4),), context.kernel, lambda values: Schedule(context.kernel))]


@pytest.mark.parametrize("late", [False, True])
def test_a_kernel_whose_constraints_cannot_be_met_is_skipped_and_the_others_are_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Said when the first point is asked for, or (``late``) when candidates are."""

    def wide_is_impossible(context: Context) -> list[Sketch]:
        return tall(context) if wide(context.kernel) and not late else [s for r in discover() for s in r(context)]

    def sample(self: Space, n: int, rng: np.random.Generator) -> np.ndarray:
        return sampled(Space(self.kernel, self.machine, rules=[tall]) if wide(self.kernel) and late else self, n, rng)

    sampled = Space.sample
    monkeypatch.setattr(Space, "sample", sample)
    found = tune_network(
        network(), records=tmp_path / "r.db", trials=20, threads=1, author="random", executor=Stub(), rules=[wide_is_impossible]
    )
    assert sum(t.trials for t in found.tasks) == 20 and found.reason == "trials"
    if late:
        assert found.skipped == () and sorted((t.weight, t.trials > 0) for t in found.tasks) == [(1, False), (1, True), (2, True)]
        (stopped,) = (t for t in found.tasks if t.stopped)
        assert stopped.trials == 0 and "no values of rows satisfy rows <= 4" in stopped.stopped
        return
    (skipped,) = found.skipped
    assert sorted(t.weight for t in found.tasks) == [1, 2] and skipped.weight == 1
    assert "no values of rows satisfy rows <= 4" in skipped.reason and "relax the constraint" in skipped.reason
    assert [r.schedule.startswith("tuned") for r in found.network.summary()] == [True, True, True, False]


def test_when_no_kernel_can_be_tuned_the_constraint_is_named(tmp_path: Path) -> None:
    stub = Stub()
    with pytest.raises(TuneError, match=r"no kernel can be tuned: MatMul\+Relu .*: tall: no values of rows satisfy rows <= 4") as refused:
        tune_network(network(), records=tmp_path / "r.db", trials=20, threads=1, executor=stub, rules=[tall])
    assert "and so for 2 other kernels" in refused.value.message
    assert "relax the constraint" in (refused.value.hint or "") and not stub.jobs


def test_replay_measures_the_recorded_points_of_every_kernel_again(tmp_path: Path) -> None:
    first = tune_network(network(), records=tmp_path / "r.db", trials=30, threads=1, author="random", executor=Stub())
    again = tune_network(network(), records=tmp_path / "r.db", trials=99, threads=1, author="replay", executor=Stub())
    assert again.reason == "exhausted" and again.skipped == () and all(t.trials for t in again.tasks)
    best = {t.task.key: t.seconds for t in first.tasks}
    assert all(t.seconds == best[t.task.key] for t in again.tasks), "the fastest recorded point of each is tried"


def test_a_kernel_that_the_author_cannot_search_is_skipped_and_the_others_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_network(network(), records=tmp_path / "r.db", trials=20, threads=1, author="random", executor=Stub())
    known = Ledger.known
    monkeypatch.setattr(Ledger, "known", lambda self, space: [] if wide(space.kernel) else known(self, space))
    found = tune_network(network(), records=tmp_path / "r.db", trials=8, threads=1, author="replay", executor=Stub())
    (skipped,) = found.skipped
    assert skipped.weight == 1 and "nothing to replay" in skipped.reason and sorted(t.weight for t in found.tasks) == [1, 2]


def test_what_cannot_be_done_is_refused_before_anything_is_built_or_recorded(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="no author 'genius'"):
        tune_network(network(), records=tmp_path / "r.db", trials=5, threads=1, author="genius", executor=Stub())
    with pytest.raises(RuntimeFailure, match=r"a trial for machine cuda\.sm80 is compiled for nvptx64"):
        tune_network(network(), load_machine("cuda.sm80"), records=tmp_path / "r.db", trials=5, threads=1)
    with RecordStore(tmp_path / "r.db") as store:
        assert store.sessions() == [] and store.tasks() == []


# --- full disks -------------------------------------------------------------------------------


class Local(Stub, Workers):
    """What it measures counts as measured on this computer, so the network is judged as a whole."""


def fill(store: RecordStore) -> None:
    """From now on the file of ``store`` cannot grow."""
    connection = store._connection()
    connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")


def kernels(network: Network) -> list[str]:
    return [str(c.module.kernel) for c in network.compiled]


def test_a_disk_that_is_lost_costs_the_records_and_not_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first round on it can neither be written nor read."""

    def lose(progress: NetworkProgress) -> None:
        def lost(self: RecordStore, *unused: object, **also: object) -> list[object]:
            raise RuntimeFailure("cannot use the records: the disk reports an error")

        for method in ("add", "save", "records"):
            monkeypatch.setattr(RecordStore, method, lost)

    with pytest.warns(RuntimeWarning, match="the disk reports an error; tuning goes on") as warned:
        found = tune_network(
            network(), records=tmp_path / "r.db", trials=60, threads=1, author="random", executor=Stub(), patience=99,
            scheduler="turns", progress=lambda p: lose(p) if p.trials else None,
        )  # fmt: skip
    assert len(warned) == 1 and sum(t.trials for t in found.tasks) == 60
    assert all(row.schedule.startswith("tuned") for row in found.network.summary())


@pytest.mark.parametrize("moment", ["trials", "comparison", "end"])
def test_a_full_disk_costs_the_records_and_not_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    class Filling(Stub):
        def compare(self, jobs: Sequence[Job], rounds: int = 15) -> list[Outcome]:
            if moment == "comparison":
                fill(store)
            return super().compare(jobs, rounds)

    def save(self: RecordStore, session: Session) -> Session:
        if session.state == "done" and self is store:
            raise RuntimeFailure("cannot write the records: the disk is full")
        return kept(self, session)

    kept = RecordStore.save
    if moment == "end":
        monkeypatch.setattr(RecordStore, "save", save)
    model = network()
    with RecordStore(tmp_path / "full.db") as store:
        with pytest.warns(RuntimeWarning, match="the disk is full.*tuning goes on, but it will not be recorded") as warned:
            found = tune_network(
                model, records=store, trials=40, threads=1, author="random", executor=Filling(), patience=99,
                progress=lambda p: fill(store) if moment == "trials" else None,
            )  # fmt: skip
        assert len(warned) == 1
        assert (store.count() < 40) == (moment == "trials")
    healthy = tune_network(model, records=tmp_path / "r.db", trials=40, threads=1, author="random", executor=Stub(), patience=99)
    assert kernels(found.network) == kernels(healthy.network) and found.seconds == healthy.seconds < found.baseline
    assert all(row.schedule.startswith("tuned") for row in found.network.summary())
    resumed = tune_network(model, records=tmp_path / "full.db", trials=40, threads=1, author="random", executor=Stub(), patience=99)
    assert resumed.session == found.session and sum(t.trials for t in resumed.tasks) == 40


def test_what_goes_back_to_its_default_does_so_without_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last kernel is slower in the network than its default, and the disk is full when that is found out."""

    def in_turns(default: Network, tuned: Network, threads: int) -> tuple[list[list[float]], list[list[float]]]:
        fill(store)
        changed = [a != b for a, b in zip(kernels(default), kernels(tuned), strict=True)]
        assert any(changed[:3])
        last = len(changed) - 1
        after = [1.0 if not c else 2.0 if k == last else 0.5 for k, c in enumerate(changed)]
        return [[1.0] * len(changed)] * 7, [after] * 7

    monkeypatch.setattr(tuning, "in_turns", in_turns)
    with RecordStore(tmp_path / "r.db") as store, pytest.warns(RuntimeWarning, match="will not be recorded") as warned:
        found = tune_network(network(), records=store, trials=40, threads=1, author="random", executor=Local(), patience=99)
    assert len(warned) == 1
    assert found.verdict is not None and found.verdict.kept and len(found.verdict.reverted) == 1
    default = kernels(compile(network(), threads=1))
    assert [a == b for a, b in zip(kernels(found.network), default, strict=True)] == [False, False, False, True]


# --- several networks --------------------------------------------------------------------------


def test_networks_share_a_budget_and_what_they_have_in_common(tmp_path: Path) -> None:
    """The second has the same kernels, one of them once less."""
    models = [Model(network(3)), Model(network(2))]
    stub = Stub()
    found = tune_networks(models, records=tmp_path / "r.db", trials=40, threads=1, author="random", executor=stub, patience=99)
    weights = [{t.task.key: t.weight for t in f.tasks} for f in found]
    assert [sorted(w.values()) for w in weights] == [[1, 1, 2], [1, 1, 1]] and weights[0].keys() == weights[1].keys()
    assert [sum(t.trials for t in f.tasks) for f in found] == [40, 40] and len(stub.jobs) == 43
    with RecordStore(tmp_path / "r.db") as store:
        (session,) = store.sessions(subject="layers + layers")
        assert dict(session.tasks) == {key: weights[0][key] + weights[1][key] for key in weights[0]} and session.state == "done"
    assert {f.session for f in found} == {session.id}
    assert [f.seconds for f in found] == [sum(t.weight * t.seconds for t in f.tasks) for f in found]
    for model, f in zip((network(3), network(2)), found, strict=True):
        assert kernels(f.network) == kernels(compile(model, threads=1, records=tmp_path / "r.db")) != kernels(compile(model, threads=1))
    with pytest.raises(TuneError, match="no network to tune"):
        tune_networks([], records=tmp_path / "r.db")
    with pytest.raises(ImportFailure, match="network 2 of 2: no input has a dimension 'batch'"):
        tune_networks([Model(network(3)), Model(network(2), dims={"batch": 1})], records=tmp_path / "r.db")


def test_a_network_that_is_fast_enough_leaves_the_budget_to_the_other(tmp_path: Path) -> None:
    models = [Model(network(2, 16), goal=1.0), Model(network(2))]
    fast, slow = tune_networks(models, records=tmp_path / "r.db", trials=40, threads=1, author="random", executor=Stub(), patience=99)
    assert (fast.reason, sum(t.trials for t in fast.tasks)) == ("goal", 0)
    assert (slow.reason, sum(t.trials for t in slow.tasks)) == ("trials", 40)
    both = [Model(network(2, 16), goal=1.0), Model(network(2), goal=1.0)]
    again = tune_networks(both, records=tmp_path / "s.db", trials=40, threads=1, author="random", executor=Stub())
    assert [f.reason for f in again] == ["goal", "goal"]


def test_what_one_network_takes_back_counts_for_all_that_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last kernel pays in the first network and not in the second, which is asked later: the records give one schedule."""

    def in_turns(default: Network, tuned: Network, threads: int) -> tuple[list[list[float]], list[list[float]]]:
        changed = [a != b for a, b in zip(kernels(default), kernels(tuned), strict=True)]
        slow = len(changed) - 1 if len(changed) == 3 else None
        return [[1.0] * len(changed)] * 7, [[1.0 if not c else 2.0 if k == slow else 0.5 for k, c in enumerate(changed)]] * 7

    monkeypatch.setattr(tuning, "in_turns", in_turns)
    models = [network(3), network(2)]
    found = tune_networks(
        [Model(m) for m in models], records=tmp_path / "r.db", trials=40, threads=1, author="random", executor=Local(), patience=99
    )
    verdicts = [f.verdict for f in found]
    assert [(v.kept, len(v.tuned), len(v.reverted)) for v in verdicts if v is not None] == [(True, 2, 1), (True, 2, 1)]
    assert [(v.baseline, v.seconds) for v in verdicts if v is not None] == [(4.0, 2.5), (3.0, 2.0)], "of the networks that are returned"
    assert len({v.reverted for v in verdicts if v is not None}) == 1
    for model, f in zip(models, found, strict=True):
        same = [a == b for a, b in zip(kernels(f.network), kernels(compile(model, threads=1)), strict=True)]
        assert same == [False] * (len(same) - 1) + [True]
        assert kernels(f.network) == kernels(compile(model, threads=1, records=tmp_path / "r.db"))
