"""Rounds of tuning on synthetic curves: they go where the network's latency falls fastest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.tune.scheduler import SCHEDULERS, Scheduler, TaskState

Curve = Callable[[int], float]


def decaying(start: float, floor: float, rate: float) -> Curve:
    return lambda t: floor + (start - floor) * rate**t


def give_out(scheduler: Scheduler, curves: Sequence[Curve], rounds: int) -> Counter[int]:
    """Rounds each task got."""
    spent: Counter[int] = Counter()
    for _ in range(rounds):
        chosen = scheduler.next()
        if chosen is None:
            break
        scheduler.observe(chosen, curves[chosen](spent[chosen]))
        spent[chosen] += 1
    return spent


def test_warm_up_takes_turns() -> None:
    s = Scheduler([TaskState((1,), 1e9), TaskState((50,), 1e9), TaskState((1,), 1e9)])
    order = []
    for _ in range(6):
        i = s.next()
        assert i is not None
        order.append(i)
        s.observe(i, 1e-3)
    assert sorted(order[:3]) == [0, 1, 2]
    assert sorted(order[3:]) == [0, 1, 2]


def test_rounds_follow_the_steepest_curve() -> None:
    flat, steep = decaying(1e-3, 0.9e-3, 0.5), decaying(1e-3, 0.1e-3, 0.95)
    spent = give_out(Scheduler([TaskState((1,), 1e6, "a"), TaskState((1,), 1e6, "b")], epsilon=0.0), [flat, steep], 40)
    assert spent[1] > 2 * spent[0]


def test_rounds_follow_the_weight() -> None:
    curve = decaying(1e-3, 0.2e-3, 0.97)
    spent = give_out(Scheduler([TaskState((1,), 1e6, "a"), TaskState((12,), 1e6, "b")], epsilon=0.0), [curve, curve], 40)
    assert spent[1] > 3 * spent[0]


def test_a_kind_that_runs_faster_elsewhere_is_expected_to_catch_up() -> None:
    # Equal times and weights after equal rounds; the first is 10 times slower per operation than its sibling, the second not.
    tasks = [TaskState((1,), 1e6, "conv", best=[1e-3, 1e-3, 1e-3]), TaskState((1,), 1e6, "pool", best=[1e-3, 1e-3, 1e-3])]
    sibling = TaskState((0,), 1e7, "conv", best=[1e-3, 1e-3, 1e-3])
    s = Scheduler([*tasks, sibling], epsilon=0.0)
    assert abs(s.slope(0)) > abs(s.slope(1))
    # forward: 2 * 1e6 / (1e7 / 1e-3) - 1e-3 = -0.8e-3 against -g / t = -1e-3 / 3; backward is 0; alpha 0.2
    assert s.slope(0) == pytest.approx(0.8 * -0.8e-3)
    assert s.slope(1) == pytest.approx(0.8 * -1e-3 / 3)


def test_backward_difference_counts_a_fifth() -> None:
    s = Scheduler([TaskState((3,), 1.0, best=[4e-3, 3e-3, 2e-3, 1e-3])], epsilon=0.0)
    assert s.slope(0) == pytest.approx(3 * (0.2 * -1e-3 + 0.8 * -1e-3 / 4))


def test_tasks_that_stopped_improving_get_nothing_more() -> None:
    spent = give_out(
        Scheduler([TaskState((100,), 1e6), TaskState((1,), 1e6)], patience=4, longest=4), [lambda t: 1e-3, decaying(1e-3, 1e-4, 0.9)], 40
    )
    assert spent[0] == 5
    assert spent[1] > 20


def test_everything_stagnant_ends_it() -> None:
    s = Scheduler([TaskState((1,), 1e6), TaskState((1,), 1e6)], patience=3, longest=3)
    assert sum(give_out(s, [lambda t: 1e-3] * 2, 100).values()) == 8
    assert s.next() is None


def test_the_goal_of_a_network_is_honoured() -> None:
    curve = decaying(1e-3, 1e-5, 0.9)
    network = Scheduler([TaskState((2,), 1e6), TaskState((1,), 1e6)], goals=[1.5e-3])
    give_out(network, [curve] * 2, 200)
    assert 1.3e-3 < network.latency <= 1.5e-3
    assert network.next() is None and network.reason == "goal"


def test_a_network_that_reached_its_goal_leaves_the_rounds_to_the_others() -> None:
    """The first network calls tasks 0 and 1, the second 1 and 2. Task 1 goes on for the sake of the second."""
    curve = decaying(1e-3, 1e-5, 0.9)
    tasks = [TaskState((1, 0), 1e6), TaskState((1, 1), 1e6), TaskState((0, 1), 1e6)]
    s = Scheduler(tasks, goals=[1.2e-3, 0.0], epsilon=0.0)
    alone: list[int] = []
    for _ in range(60):
        chosen = s.next()
        assert chosen is not None
        if sum(t.weights[0] * t.seconds for t in tasks) <= 1.2e-3:
            alone.append(chosen)
        s.observe(chosen, curve(tasks[chosen].rounds))
    assert len(alone) > 20 and set(alone) == {1, 2}
    assert Scheduler(tasks, goals=[1.0, 1.0]).next() is None
    in_turns = SCHEDULERS["turns"](tasks, goals=[1.2e-3, 0.0])
    assert in_turns.next() in (1, 2)


def test_what_several_networks_call_counts_for_each() -> None:
    shared, own = TaskState((1, 1), 1e6, "a", best=[1e-3, 1e-3]), TaskState((1, 0), 1e6, "b", best=[1e-3, 1e-3])
    s = Scheduler([shared, own], goals=[0.0, 0.0], epsilon=0.0)
    assert s.slope(0) == pytest.approx(2 * s.slope(1)) and s.latency == pytest.approx(3e-3)
    met = Scheduler([shared, own], goals=[0.0, 1.0], epsilon=0.0)
    assert met.slope(0) == pytest.approx(met.slope(1))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_goal_that_can_be_reached_is_reached(data: st.DataObject) -> None:
    """Curves that reach their floors in few rounds, goals above what the floors come to: whoever shares what with whom."""
    count, networks = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    weights = [tuple(data.draw(st.integers(0, 3)) for _ in range(networks)) for _ in range(count)]
    floors = [data.draw(st.floats(0.1, 0.9)) * 1e-3 for _ in range(count)]
    curves = [decaying(1e-3, floor, 0.3) for floor in floors]
    goals = [1.1 * sum(w[n] * f for w, f in zip(weights, floors, strict=True)) for n in range(networks)]
    s = Scheduler([TaskState(w, 1e6, str(k)) for k, w in enumerate(weights)], goals=goals, seed=data.draw(st.integers(0, 9)))
    give_out(s, curves, 60 * count)
    assert s.next() is None and s.reason == "goal"


def test_failures_do_not_count_as_times() -> None:
    s = Scheduler([TaskState((1,), 1e6)])
    s.observe(0, inf)
    assert s.latency == inf
    assert s.next() == 0
    s.observe(0, 1e-3)
    s.observe(0, 2e-3)
    assert s.tasks[0].best == [inf, 1e-3, 1e-3]


def test_tasks_that_hardly_count_are_only_measured() -> None:
    curve = decaying(1e-3, 1e-5, 0.9)
    spent = give_out(Scheduler([TaskState((1,), 1e6), TaskState((1,), 1e3)]), [curve, lambda t: 1e-9 * 0.9**t], 20)
    assert spent[1] == 1
    assert spent[0] == 19


def test_exhausted_tasks_get_nothing_more() -> None:
    s = Scheduler([TaskState((1,), 1e6)])
    s.observe(0, 1e-3, exhausted=True)
    assert s.next() is None and s.reason == "exhausted"


def test_patience_grows_while_the_budget_lasts_up_to_a_limit_that_is_stated() -> None:
    """Flat tasks: rounds go on in turns until each had ``longest`` rounds without an improvement."""
    s = Scheduler([TaskState((1,), 1e6), TaskState((1,), 1e6)], patience=3, longest=10, epsilon=0.0)
    spent = give_out(s, [lambda t: 1e-3, lambda t: 1e-3], 100)
    assert spent == Counter({0: 11, 1: 11}) and s.patience == 10 and s.reason == "converged"


def test_a_task_that_improves_late_is_found_by_patience() -> None:
    s = Scheduler([TaskState((1,), 1e6), TaskState((1,), 1e6)], patience=2, longest=16, epsilon=0.0)
    spent = give_out(s, [lambda t: 1e-3, lambda t: 1e-3 if t < 8 else 0.5e-3], 100)
    assert s.latency == 1.5e-3 and spent[1] > spent[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.floats(0.05, 0.9), st.floats(0.5, 0.97)), min_size=2, max_size=6), st.integers(0, 99))
def test_never_much_worse_than_turns_on_curves_that_flatten(tasks: list[tuple[int, float, float]], seed: int) -> None:
    curves = [decaying(1e-3, 1e-3 * floor, rate) for _, floor, rate in tasks]
    rounds = 12 * len(tasks)
    s = Scheduler([TaskState((w,), 1e6, str(k)) for k, (w, _, _) in enumerate(tasks)], epsilon=0.0, patience=1000, seed=seed)
    give_out(s, curves, rounds)
    in_turns = sum(w * c(11) for (w, _, _), c in zip(tasks, curves, strict=True))
    assert s.latency <= 1.25 * in_turns


def test_turns_give_every_task_the_same_whatever_it_brings() -> None:
    flat, steep = decaying(1e-3, 1e-3, 0.5), decaying(1e-1, 1e-4, 0.5)
    s = SCHEDULERS["turns"]([TaskState((1,), 1e6), TaskState((90,), 1e6), TaskState((1,), 1.0)])
    assert give_out(s, [flat, steep, flat], 60) == Counter({0: 20, 1: 20, 2: 20})
    s.observe(1, 1e-4, exhausted=True)
    assert {s.next() for _ in range(5)} == {0}
    assert SCHEDULERS["turns"]([TaskState((1,), 1e6, best=[1e-3])], goals=[1e-2]).next() is None
