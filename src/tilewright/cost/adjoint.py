"""Gradients of a tape on NumPy arrays: one pass forward that keeps every value, one backward over the same steps.

For searches that take many steps with some hundreds of rows: what a step costs is then the number of array operations,
and these are few and small. Kinks have the gradient of one side; floors pass gradients through, as they do for tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.cost.tape import Tape
from tilewright.util.errors import IRTypeError

Value = Any
#: From the adjoint of a result, the result and the arguments: (position, its adjoint) of each argument that has one.
Rule = Callable[..., Sequence[tuple[int, Value]]]


class Adjoint:
    """Values and gradients of the results of ``tape`` with respect to some of its ``variables`` (default: all)."""

    def __init__(self, tape: Tape, variables: Collection[str] | None = None):
        self._size, names, self._constants, self._results = tape.places
        if variables is not None and (unknown := set(variables) - set(names)):
            raise IRTypeError(f"the tape has no variable {min(unknown)!r}", hint=f"variables: {', '.join(names)}")
        self._inputs = {name: slot for name, slot in names.items() if variables is None or name in variables}
        self._names = names
        live = set(self._inputs.values())
        self._steps = []
        for op, apply, slot, args in tape.steps:
            wanted = tuple(a in live for a in args)
            rule = _RULES.get(op) if any(wanted) else None
            if rule is not None:
                live.add(slot)
            self._steps.append((apply, slot, args, rule, wanted))

    def forward(self, env: Mapping[str, Value]) -> list[Value]:
        """Values of all places of the tape, for :meth:`results` and :meth:`backward`."""
        slots: list[Value] = [None] * self._size
        for slot, value in self._constants:
            slots[slot] = value
        for name, slot in self._names.items():
            if name not in env:
                raise IRTypeError(f"knob {name!r} has no value", hint=f"bound are: {', '.join(env) or 'none'}")
            slots[slot] = env[name]
        for apply, slot, args, _, _ in self._steps:
            slots[slot] = apply(*[slots[a] for a in args])
        return slots

    def results(self, slots: Sequence[Value]) -> list[Value]:
        """The results among ``slots``."""
        return [slots[i] for i in self._results]

    def backward(self, slots: Sequence[Value], seeds: Sequence[Value | None]) -> dict[str, Value]:
        """Gradient of sum(seed * result) for each variable; 0 where nothing depends on it."""
        adjoint: list[Value] = [None] * self._size
        for slot, seed in zip(self._results, seeds, strict=True):
            if seed is not None:
                adjoint[slot] = seed if adjoint[slot] is None else adjoint[slot] + seed
        for _, slot, args, rule, wanted in reversed(self._steps):
            above = adjoint[slot]
            if above is None or rule is None:
                continue
            for n, part in rule(above, slots[slot], wanted, *[slots[a] for a in args]):
                a = args[n]
                adjoint[a] = part if adjoint[a] is None else adjoint[a] + part
            adjoint[slot] = None  # its memory serves the next value while it is in the cache
        return {name: 0.0 if adjoint[slot] is None else adjoint[slot] for name, slot in self._inputs.items()}


def _add(g: Value, _out: Value, wanted: tuple[bool, ...], _a: Value, _b: Value) -> Sequence[tuple[int, Value]]:
    return [(n, g) for n in (0, 1) if wanted[n]]


def _mul(g: Value, _out: Value, wanted: tuple[bool, ...], a: Value, b: Value) -> Sequence[tuple[int, Value]]:
    return [(n, g * other) for n, other in ((0, b), (1, a)) if wanted[n]]


def _div(g: Value, _out: Value, wanted: tuple[bool, ...], a: Value, b: Value) -> Sequence[tuple[int, Value]]:
    over = g / b
    return [(n, part) for n, part in ((0, over), (1, -over * (a / b))) if wanted[n]]


def _extremum(first: Callable[[Value, Value], Value]) -> Rule:
    def rule(g: Value, _out: Value, wanted: tuple[bool, ...], a: Value, b: Value) -> Sequence[tuple[int, Value]]:
        picked = first(a, b)
        return [(n, g * side) for n, side in ((0, picked), (1, np.logical_not(picked))) if wanted[n]]

    return rule


def _where(g: Value, _out: Value, wanted: tuple[bool, ...], c: Value, _a: Value, _b: Value) -> Sequence[tuple[int, Value]]:
    return [(n, g * side) for n, side in ((1, np.not_equal(c, 0)), (2, np.equal(c, 0))) if wanted[n]]


_RULES: dict[str, Rule] = {
    "add": _add,
    "mul": _mul,
    "div": _div,
    "floordiv": _div,
    "ceildiv": _div,
    "min": _extremum(lambda a, b: np.less_equal(a, b)),
    "max": _extremum(lambda a, b: np.greater_equal(a, b)),
    "where": _where,
}
