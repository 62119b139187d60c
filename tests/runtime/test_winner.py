"""Which record counts as a task's best: confirmed winners, by gain, and nothing that only looked fast."""

from __future__ import annotations

import itertools

import pytest
from tests.runtime.trials import task

from tilewright.runtime.records import Record, RecordStore
from tilewright.runtime.records.record import host_name
from tilewright.runtime.records.winner import best_of
from tilewright.util.errors import RuntimeFailure

_DAYS = itertools.count(1)


def comparison(winner: str, gain: float | None, *others: str, baseline: str = "default", host: str | None = None) -> list[Record]:
    """A final comparison of schedules by name; the fastest samples are never the winner's."""
    date = f"2026-01-01T00:00:{next(_DAYS):02}"
    first = Record(task(), "ok", (1e-3,), baseline, role="final", date=date, host=host or host_name())
    out = [first]
    for name in dict.fromkeys((*others, winner)):
        won = name == winner
        out.append(
            Record(
                task(), "ok", (2e-3 if won else 1.5e-3,), name, role="final", against=first.uid, winner=won, gain=gain if won else None,
                date=date, host=first.host,
            )
        )  # fmt: skip
    return out


def best_trace(*comparisons: list[Record]) -> str:
    found = best_of([r for c in comparisons for r in c])
    assert found is not None and found.winner
    return found.trace


def test_the_declared_winner_counts_and_not_the_fastest_sample() -> None:
    lucky = Record(task(), "ok", (1e-6,), "lucky")
    assert best_trace([lucky], comparison("a", 1.2, "b")) == "a"


def test_without_a_decision_final_measurements_go_before_trials() -> None:
    trial, final = Record(task(), "ok", (1e-6,), "lucky"), Record(task(), "ok", (1e-3,), "compared", role="final")
    assert best_of([trial, final]) is final and not final.winner
    assert best_of([trial]) is trial and best_of([Record(task(), "crash")]) is None


def test_winners_that_never_met_are_compared_by_gain() -> None:
    older, newer = comparison("a", 1.5), comparison("b", 1.3)
    assert best_trace(older, newer) == best_trace(newer, older) == "a"
    assert best_trace(comparison("a", 1.5), comparison("b", 1.6)) == "b"


def test_a_winner_beaten_later_counts_no_more_whatever_its_gain_was() -> None:
    assert best_trace(comparison("a", 1.9), comparison("b", 1.3, "a")) == "b"
    assert best_trace(comparison("a", 1.9), comparison("a", 1.2, "b")) == "a"
    assert best_trace(comparison("a", 1.9), comparison("b", 1.3, "a"), comparison("c", 1.25)) == "b"


def test_gains_over_different_baselines_are_not_compared() -> None:
    """The schedule without tuning became faster: gains over the old one say nothing."""
    assert best_trace(comparison("a", 3.0, baseline="slow default"), comparison("b", 1.1)) == "b"


def test_a_comparison_without_a_baseline_counts_when_it_is_the_latest() -> None:
    assert best_trace(comparison("a", 1.5), comparison("b", None, baseline="a")) == "b"


def test_comparisons_of_this_computer_go_first() -> None:
    elsewhere = comparison("a", 2.0, host="far away")
    assert best_trace(elsewhere) == "a" and best_trace(elsewhere, comparison("b", 1.1)) == "b"
    found = best_of([*elsewhere, *comparison("b", 1.1)], host="far away")
    assert found is not None and found.trace == "a"


def test_the_store_follows_the_rule(store: RecordStore) -> None:
    store.add(Record(task(), "ok", (1e-6,), "lucky"), *comparison("a", 1.5), *comparison("b", 1.2, "c"))
    best = store.best(task())
    assert best is not None and (best.trace, best.gain) == ("a", 1.5)
    assert store.tasks()[0].seconds == best.seconds


@pytest.mark.parametrize(
    "values",
    [{"winner": True}, {"winner": True, "role": "final"}, {"gain": 1.5, "role": "final", "against": "x"},
     {"winner": True, "gain": 0.0, "role": "final", "against": "x"}],
)  # fmt: skip
def test_decisions_that_mean_nothing_are_refused(values: dict) -> None:
    with pytest.raises(RuntimeFailure, match=r"winners come of comparisons|a gain of"):
        Record(task(), "ok", (1.0,), **values)


def test_who_cannot_use_the_best_is_given_the_next(store: RecordStore) -> None:
    """Every schedule once, in the order in which each would be the best without those before it."""
    assert list(store.ranked(task())) == []
    store.add(Record(task(), "ok", (1e-6,), "lucky"), Record(task(), "ok", (2e-6,), "lucky"), Record(task(), "crash"))
    assert [r.samples for r in store.ranked(task())] == [(1e-6,)]
    store.add(*comparison("a", 1.5), *comparison("b", 1.2, "c"))
    assert [r.trace for r in store.ranked(task())] == ["a", "b", "default", "c", "lucky"]
