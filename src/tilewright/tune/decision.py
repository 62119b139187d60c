"""Declaring a winner: the fastest of many noisy trials was also the luckiest, so the best are compared once more."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from tilewright.runtime.jobs import Outcome

if TYPE_CHECKING:
    from tilewright.tune.search import Trial

MIN_ROUNDS, MAX_ROUNDS = 7, 31
#: Seconds the comparison may take, roughly, and what one sample takes at least.
COMPARISON, SAMPLE = 4.0, 0.003
#: A winner on arrays as callers have them keeps at least this share of the baseline's speed on aligned arrays.
TOLERATED = 0.95


@dataclass(frozen=True, slots=True)
class Standing:
    """The winner, its seconds per call, those of the baseline from the same rounds (infinite if it failed).

    ``gain`` is the median over the rounds of the baseline's time over the winner's; ``confirmed``:
    compared in turns, and not only by the trials of the search.
    """

    winner: Trial
    seconds: float
    baseline: float
    gain: float
    confirmed: bool


def rounds_for(seconds: Sequence[float]) -> int:
    """Rounds of a comparison of contenders that take ``seconds`` each."""
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(COMPARISON / max(_round(seconds), 1e-9))))


def comparison_seconds(seconds: Sequence[float]) -> float:
    """What their measurements take."""
    return rounds_for(seconds) * _round(seconds)


def _round(seconds: Sequence[float]) -> float:
    """A round: for each one call that is not timed, and a sample."""
    return sum(s + max(s, SAMPLE) for s in seconds)


def decide(
    contenders: Sequence[Trial],
    outcomes: Sequence[Outcome],
    *,
    has_baseline: bool,
    robust: Callable[[Trial, Trial], bool] = lambda baseline, challenger: True,
) -> Standing:
    """The winner by the outcomes of the comparison. The baseline, which is first if there is one, has to be beaten clearly.

    Samples of one round are compared with each other. A challenger wins if it is faster than the
    baseline in three rounds of four; of those that are, the fastest in the median that is ``robust`` (asked for the
    baseline and it) wins.
    """
    compared = [(t, o) for t, o in zip(contenders, outcomes, strict=True) if o.ok]
    if not compared:
        return unconfirmed(contenders[0] if has_baseline else None, contenders)
    base = outcomes[0] if has_baseline and outcomes[0].ok else None
    if base is None:
        winner, o = min(compared, key=lambda c: statistics.median(c[1].samples))
        return Standing(winner, o.seconds, inf, inf, True)
    clear = [(median_ratio(base, o), t, o) for t, o in compared[1:] if clearly_faster(base.samples, o.samples)]
    for gain, t, o in sorted(clear, key=lambda c: -c[0]):
        if robust(contenders[0], t):
            return Standing(t, o.seconds, base.seconds, gain, True)
    return Standing(contenders[0], base.seconds, base.seconds, 1.0, True)


def median_ratio(base: Outcome, other: Outcome) -> float:
    """Median over the rounds of the time of ``base`` over that of ``other``."""
    return statistics.median(_ratios(base.samples, other.samples))


def clearly_faster(base: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the seconds of ``other`` are fewer than those of ``base`` in three rounds of four."""
    ratios = _ratios(base, other)
    return ratios[len(ratios) // 4] > 1.0


def _ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    return sorted(b / s for b, s in zip(base, other, strict=True))


def unconfirmed(baseline: Trial | None, trials: Sequence[Trial]) -> Standing:
    """The fastest trial, when there was no time (or nobody left) to compare."""
    winner = min((t for t in [*([baseline] if baseline else []), *trials] if t.outcome.ok), key=lambda t: t.seconds)
    before = baseline.seconds if baseline else inf
    return Standing(winner, winner.seconds, before, before / winner.seconds, False)
