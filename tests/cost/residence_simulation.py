"""Words moved between explicit memories, found by running every iteration and remembering what each unit holds.

It knows mappings and tensors, and nothing of the algebra that it is the authority for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from tilewright.cost.loopnest import LoopNest
from tilewright.hw.hierarchy import STREAMED

#: A loop: dimension, trips, depth of its level, whether its iterations run side by side.
Loop = tuple[str, int, int, bool]
Tensor = Callable[[dict[str, int]], tuple[int, ...]]


def tensors(stride: tuple[int, int], dilation: tuple[int, int]) -> dict[str, Tensor]:
    def window(v: dict[str, int]) -> tuple[int, ...]:
        return v["N"], v["C"], v["P"] * stride[0] + v["R"] * dilation[0], v["Q"] * stride[1] + v["S"] * dilation[1]

    return {"W": lambda v: (v["K"], v["C"], v["R"], v["S"]), "I": window, "O": lambda v: (v["N"], v["K"], v["P"], v["Q"])}


def loops_of(nest: LoopNest) -> list[Loop]:
    out: list[Loop] = []
    for depth, level in zip(range(len(nest.levels) - 1, -1, -1), nest.levels, strict=True):
        out += [(f.dim, int(f.trips), depth, False) for f in level.temporal] + [(f.dim, int(f.trips), depth, True) for f in level.spatial]
    return out


def counters(loops: list[Loop], chosen: list[int]) -> Iterator[dict[int, int]]:
    for values in product(*(range(loops[n][1]) for n in chosen)):
        yield dict(zip(chosen, values, strict=True))


def dimensions(loops: list[Loop], at: dict[int, int]) -> dict[str, int]:
    values = dict.fromkeys("NKCPQRS", 0)
    for n, (dim, trips, _, _) in enumerate(loops):
        values[dim] = values[dim] * trips + at[n]
    return values


def simulate(nest: LoopNest, access: Tensor, tensor: str, reuse: str) -> dict[int, list[int]]:
    """[words served inwards, words taken in] for each depth that keeps the tensor."""
    loops, everything = loops_of(nest), range(len(loops_of(nest)))
    chain = [d for d, level in enumerate(reversed(nest.levels)) if tensor in level.keeps]
    out: dict[int, list[int]] = {d: [0, 0] for d in chain}
    for child, parent in zip([-1, *chain], [*chain, None], strict=True):
        if parent is None:
            break
        inside = [n for n in everything if loops[n][2] <= child]
        steps = [n for n in everything if loops[n][2] > child and not loops[n][3]]
        near = [n for n in everything if loops[n][3] and child < loops[n][2] <= parent]
        far = [n for n in everything if loops[n][3] and loops[n][2] > parent]
        for group in counters(loops, far):
            held: dict[tuple[int, ...], frozenset[Any]] = {}
            before: dict[int, int] | None = None
            for step in counters(loops, steps):
                deliveries = set()
                for unit in counters(loops, near):
                    touched = [access(dimensions(loops, {**group, **step, **unit, **inner})) for inner in counters(loops, inside)]
                    now = bounding_box(touched)
                    key = tuple(unit.values())
                    old = held.get(key, frozenset()) if child >= 0 else frozenset()
                    if reuse == STREAMED and before is not None and old != now and not only_the_innermost(loops, steps, before, step):
                        old = frozenset()
                    if reuse == STREAMED and before is not None and old == now and moved(loops, steps, before, step, access):
                        old = frozenset()
                    if child >= 0:
                        out[child][1] += len(now - old)
                    held[key] = now
                    deliveries.add((now, old))
                out[parent][0] += sum(len(now - old) for now, old in deliveries)
                before = step
    return out


def bounding_box(points: list[tuple[int, ...]]) -> frozenset[Any]:
    return frozenset(product(*(range(min(c), max(c) + 1) for c in zip(*points, strict=True))))


def advanced(steps: list[int], before: dict[int, int], now: dict[int, int]) -> int:
    """The loop that went on; those inside it started again."""
    return next(n for n in steps if before[n] != now[n])


def only_the_innermost(loops: list[Loop], steps: list[int], before: dict[int, int], now: dict[int, int]) -> bool:
    return all(loops[n][1] == 1 for n in steps[steps.index(advanced(steps, before, now)) + 1 :])


def moved(loops: list[Loop], steps: list[int], before: dict[int, int], now: dict[int, int], access: Tensor) -> bool:
    """Whether, coming back to the same place, the tensor was elsewhere in between (and the step is not the innermost loop's)."""
    if only_the_innermost(loops, steps, before, now):
        return False
    zero = dict.fromkeys(range(len(loops)), 0)
    origin = access(dimensions(loops, zero))
    changed = steps[steps.index(advanced(steps, before, now)) :]
    return any(access(dimensions(loops, {**zero, n: 1})) != origin for n in changed if loops[n][1] > 1)


def first_visits(nest: LoopNest, level: int) -> int:
    """Results that each instance of a level sees for the first time, summed: its reads there need no old value."""
    loops, depth = loops_of(nest), len(nest.levels) - 1 - level
    seen = set()
    for at in counters(loops, list(range(len(loops)))):
        instance = tuple(v for n, v in at.items() if loops[n][3] and loops[n][2] > depth)
        v = dimensions(loops, at)
        seen.add((instance, v["N"], v["K"], v["P"], v["Q"]))
    return len(seen)
