"""Evaluation of several programs' formulas for a population whose points are of different programs.

Programs of one schedule space have most of their sub-expressions in common. So points are sorted by program, and each node
of the common graph is evaluated once, for the rows from the first to the last of the programs that need it. Rows between
those of other programs are evaluated, too, and ignored: a few more elements cost less than another array operation.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np

from tilewright.cost.formula import Formula
from tilewright.cost.tape import needed
from tilewright.util.errors import IRTypeError

#: What no array operation converts exactly: larger constants are floats.
LARGEST = 1 << 62
#: An operation, the place of its result, and those of up to three arguments (NONE: it has fewer).
Step = tuple[Any, int, int, int, int]
NONE = -1


@dataclass(frozen=True, slots=True)
class Part:
    """Values of the formulas of program number ``program`` for ``rows`` of the population."""

    program: int
    rows: slice
    values: list[np.ndarray]


class Joint:
    """The formulas of ``programs``, all of one graph, compiled together for NumPy populations."""

    def __init__(self, programs: Sequence[Sequence[Formula]]):
        self.programs = tuple(tuple(p) for p in programs)
        compiled = _Compiler(self.programs)
        self._masks = list(compiled.groups)
        self._constants, self._variables, self._views = compiled.constants, compiled.variables, list(compiled.slices.items())
        self._results = [[(compiled.place[f.number], compiled.group.get(f.number)) for f in p] for p in self.programs]
        self._runs = compiled.runs(place for p in self._results for place, _ in p)
        self._size = compiled.size

    def __len__(self) -> int:
        """Array operations of an evaluation in which all programs take part (parts of arrays are taken for nothing)."""
        return sum(step[0] is not operator.getitem for _, steps in self._runs for step in steps)

    def __call__(self, env: Mapping[str, np.ndarray], counts: Sequence[int], chunk: int) -> Iterator[Part]:
        """Values for a population, ``chunk`` rows at a time: the first ``counts[0]`` points are of the first program, and so on.

        ``env`` has a float64 array for each knob, as long as the population; where a program has no such knob, any number from 1 on.
        IRTypeError names an unbound knob.
        """
        ends = list(accumulate(counts))
        env = {**dict.fromkeys(self._unbound(env, counts), np.ones(ends[-1] if ends else 0)), **env}
        for lo in range(0, ends[-1] if ends else 0, chunk):
            hi = min(lo + chunk, ends[-1])
            own = {}
            for p, (count, end) in enumerate(zip(counts, ends, strict=True)):
                begin = max(end - count, lo)
                if begin < min(end, hi):
                    own[p] = (begin - lo, min(end, hi) - lo)
            # What is ignored may divide by zero: other programs' knobs have other bounds.
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                slots, rows = self._evaluate({n: v[lo:hi] for n, v in env.items()}, own)
            for p, (begin, end) in own.items():
                yield Part(p, slice(lo + begin, lo + end), self._values(p, begin, end, slots, rows))

    def _unbound(self, env: Mapping[str, np.ndarray], counts: Sequence[int]) -> list[str]:
        """Knobs without values: of programs that have no points."""
        present = sum(1 << p for p, count in enumerate(counts) if count)
        missing = [(name, needing) for name, needing in self._variables.values() if name not in env]
        for name, needing in missing:
            if needing & present:
                raise IRTypeError(f"knob {name!r} has no value", hint=f"bound are: {', '.join(env) or 'none'}")
        return [name for name, _ in missing]

    def _evaluate(
        self, env: Mapping[str, np.ndarray], own: Mapping[int, tuple[int, int]]
    ) -> tuple[list[Any], list[tuple[int, int] | None]]:
        """Values in all places, and the rows of each group of nodes (None: of no program that takes part)."""
        present = sum(1 << p for p in own)
        rows: list[tuple[int, int] | None] = []
        for mask in self._masks:
            needing = mask & present
            rows.append((own[(needing & -needing).bit_length() - 1][0], own[needing.bit_length() - 1][1]) if needing else None)
        slots: list[Any] = [None] * self._size
        for place, value in self._constants.items():
            slots[place] = value
        for place, (name, _) in self._variables.items():
            slots[place] = env[name]
        for (outer, inner), place in self._views:
            around, inside = rows[outer], rows[inner]
            if around is not None and inside is not None:
                slots[place] = slice(inside[0] - around[0], inside[1] - around[0])
        for group, steps in self._runs:
            if rows[group] is None:
                continue
            for apply, out, a, b, c in steps:
                if c >= 0:
                    slots[out] = apply(slots[a], slots[b], slots[c])
                elif b >= 0:
                    slots[out] = apply(slots[a], slots[b])
                else:
                    slots[out] = apply(slots[a])
        return slots, rows

    def _values(self, program: int, begin: int, end: int, slots: list[Any], rows: list[tuple[int, int] | None]) -> list[np.ndarray]:
        found = []
        for place, group in self._results[program]:
            at = None if group is None else rows[group]
            found.append(np.full(end - begin, slots[place]) if at is None else slots[place][begin - at[0] : end - at[0]])
        return found


class _Compiler:
    """Steps in order, each of a group: nodes that the same programs need, whose values have the same rows."""

    def __init__(self, programs: Sequence[Sequence[Formula]]):
        order = needed([f for p in programs for f in p])
        masks = dict.fromkeys((f.number for f in order), 0)
        for n, p in enumerate(programs):
            for f in p:
                masks[f.number] |= 1 << n
        for f in reversed(order):
            for x in f.args:
                masks[x.number] |= masks[f.number]
        everything = (1 << len(programs)) - 1
        self.groups: dict[int, int] = {everything: 0}
        self.group: dict[int, int] = {}
        self.place: dict[int, int] = {}
        self.constants: dict[int, Any] = {}
        self.variables: dict[int, tuple[str, int]] = {}
        self.slices: dict[tuple[int, int], int] = {}
        self.steps: list[tuple[int, Step]] = []
        self.size = 0
        self._views: dict[tuple[int, int], int] = {}
        self._quotients: dict[tuple[int, int, int], int] = {}
        for f in order:
            if f.is_const:
                exact = isinstance(f.value, float) or abs(f.value) < LARGEST
                self.constants[self._new(f)] = np.array(f.value if exact else float(f.value))
            elif f.op == "var":
                self.variables[self._new(f)] = f.value, masks[f.number]
                self.group[f.number] = 0
            else:
                self._step(f, self.groups.setdefault(masks[f.number], len(self.groups)))

    def _new(self, f: Formula) -> int:
        place = self.place[f.number] = self._fresh()
        return place

    def _fresh(self) -> int:
        self.size += 1
        return self.size - 1

    def _step(self, f: Formula, group: int) -> None:
        args = [self._argument(x, group) for x in f.args]
        if f.op in _ROUND:
            quotient = self._quotients.get((args[0], args[1], group))
            if quotient is None:
                quotient = self._quotients[args[0], args[1], group] = self._fresh()
                self.steps.append((group, (np.divide, quotient, args[0], args[1], NONE)))
            self.steps.append((group, (_ROUND[f.op], self._new(f), quotient, NONE, NONE)))
        elif f.op == "not":
            zero = self._fresh()
            self.constants[zero] = np.array(0)
            self.steps.append((group, (np.equal, self._new(f), args[0], zero, NONE)))
        else:
            a, b, c = (*args, NONE)[:3]
            self.steps.append((group, (_APPLY[f.op], self._new(f), a, b, c)))
        self.group[f.number] = group

    def _argument(self, x: Formula, group: int) -> int:
        """The place of the rows of ``x`` that a step of ``group`` needs."""
        whole, place = self.group.get(x.number), self.place[x.number]
        if whole is None or whole == group:
            return place
        if (place, group) not in self._views:
            part = self.slices.get((whole, group))
            if part is None:
                part = self.slices[whole, group] = self._fresh()
            self._views[place, group] = self._fresh()
            self.steps.append((group, (operator.getitem, self._views[place, group], place, part, NONE)))
        return self._views[place, group]

    def runs(self, kept: Iterable[int]) -> list[tuple[int, list[Step]]]:
        """Neighbours of one group together. Places of values that are not ``kept`` serve others after their last use:
        their memory is still in the cache then."""
        fixed = {*kept, *self.constants, *self.variables, *self.slices.values()}
        last: dict[int, int] = {}
        for n, (_, (_, _, *args)) in enumerate(self.steps):
            last.update(dict.fromkeys(args, n))
        free: list[int] = []
        now = {place: place for place in fixed} | {NONE: NONE}
        steps: list[tuple[int, Step]] = []
        for n, (group, (apply, out, *args)) in enumerate(self.steps):
            a, b, c = (now[x] for x in args)
            free += {now[x] for x in args if last[x] == n and x not in fixed and x != NONE}
            if out not in fixed:
                now[out] = free.pop() if free else out
            steps.append((group, (apply, now[out], a, b, c)))
        return [(group, [s for _, s in run]) for group, run in groupby(steps, key=operator.itemgetter(0))]


_ROUND: dict[str, Any] = {"floordiv": np.floor, "ceildiv": np.ceil}
_APPLY: dict[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "le": np.less_equal,
    "and": np.bitwise_and,
    "where": np.where,
}
