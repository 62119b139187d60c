"""Whether a tuned network is kept: compared as a whole with the one that was not tuned, and kernel by kernel where it runs.

A kernel that is faster on its own need not be faster between others: its operands lie in other caches, other threads have just
written them. So the tuned network and the default one run in turns with a clock around each kernel. Tuned kernels that are not
faster there go back to their default schedules; what remains has to beat the default network, or nothing remains.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.inputs import random_inputs
from tilewright.graph.network import Network
from tilewright.runtime.measurement import measure
from tilewright.tune.decision import COMPARISON, MAX_ROUNDS, MIN_ROUNDS, clearly_faster


@dataclass(frozen=True, slots=True)
class Verdict:
    """The network with tuned schedules against the one without, in turns: median seconds per run of all kernels.

    ``gain`` is the median over the rounds of the time without tuning over the time with it. ``tuned``: names of the kernels that run
    with tuned schedules, ``reverted``: of those that are faster on their own only, here or in a network that shares them. ``kept``:
    the tuned network won. Where it did not, the default schedules are used, and ``seconds`` is what it would have taken (both 0: no
    kernel had another schedule).
    """

    baseline: float
    seconds: float
    gain: float
    kept: bool
    tuned: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()


#: Seconds of every step in each round, first of the default network and then of the tuned one.
Rounds = tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]
#: Called with the name of a kernel that goes back to its default, and its seconds in each round before and after tuning.
Revert = Callable[[str, Sequence[float], Sequence[float]], None]


def judge(
    default: Network,
    compile: Callable[[], Network],
    changed: Callable[[Network], Mapping[str, Sequence[int]]],
    revert: Revert,
    in_turns: Callable[[Network, Network], Rounds],
) -> tuple[Network, Verdict]:
    """The network to use, and why.

    ``compile`` makes the tuned network from what is recorded, ``changed`` says at which steps it differs from the default one: the
    steps of each kernel, by name. ``revert`` records that a kernel's default is better here, so that ``compile`` follows it.
    """
    network = compile()
    places, reverted = changed(network), list[str]()
    before: Sequence[Sequence[float]] = ()
    if places:
        before, after = in_turns(default, network)
        for name, steps in places.items():
            mine = [_sums(rounds, steps) for rounds in (before, after)]
            if statistics.median(b / a for b, a in zip(*mine, strict=True)) <= 1.0:
                revert(name, *mine)
                reverted.append(name)
    if reverted:
        network = compile()
        places = changed(network)
        if places:
            before, after = in_turns(default, network)
    if not places:
        usual = statistics.median(map(sum, before)) if before else 0.0
        return default, Verdict(usual, usual, 1.0, False, (), tuple(reverted))
    totals = [[sum(r) for r in rounds] for rounds in (before, after)]
    kept = clearly_faster(*totals)
    gain = statistics.median(b / a for b, a in zip(*totals, strict=True))
    baseline, seconds = map(statistics.median, totals)
    verdict = Verdict(baseline, seconds, gain, kept, tuple(places) if kept else (), tuple(reverted))
    if not kept:
        for name, steps in places.items():
            revert(name, _sums(before, steps), _sums(after, steps))
    return (network if kept else default), verdict


def _sums(rounds: Sequence[Sequence[float]], steps: Sequence[int]) -> list[float]:
    return [sum(r[k] for k in steps) for r in rounds]


def in_turns(default: Network, tuned: Network, threads: int) -> Rounds:
    """Both networks on the same random inputs, with a clock around each kernel."""
    inputs = random_inputs(default)
    times: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = [], []
    for network in (default, tuned):
        network(inputs)
    rounds = rounds_of(sum(default.times()))
    runs = {str(n): lambda n=n, w=w: times[n].append(w.times()) for n, w in enumerate((default, tuned))}
    measure(runs, warmup=1, repeats=rounds, min_time=0.0, threads=threads)
    return times[0][-rounds:], times[1][-rounds:]  # what came before were warm-ups


def rounds_of(seconds: float) -> int:
    """Rounds of a comparison of two networks that take ``seconds`` each."""
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(COMPARISON / max(2 * seconds, 1e-9))))
