"""Evaluation of formulas on anything: one pass over the nodes that the wanted results need.

It takes Python numbers (one schedule), NumPy arrays (a population: no Python per candidate) or torch
tensors (differentiable: floors pass gradients straight through).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.cost.formula import Formula, Number
from tilewright.util.errors import IRTypeError


class Tape:
    """The nodes some results need, in order: evaluates them together, each once, and frees values after their last use."""

    def __init__(self, outputs: Sequence[Formula]):
        self.outputs = tuple(outputs)
        order = needed(self.outputs)
        slot = {f.number: i for i, f in enumerate(order)}
        self._constants = [(slot[f.number], f.value) for f in order if f.is_const]
        self._variables = [(slot[f.number], f.value) for f in order if f.op == "var"]
        self._results = [slot[f.number] for f in self.outputs]
        self._steps: list[tuple[Any, int, tuple[int, ...], list[int]]] = []
        self._operators: list[str] = []
        kept = bytearray(len(order))
        for i in (*self._results, *(i for i, _ in self._constants)):
            kept[i] = 1
        for f in reversed(order):
            if f.args:
                args = tuple([slot[x.number] for x in f.args])
                freed = []
                for place in args:
                    if not kept[place]:
                        kept[place] = 1
                        freed.append(place)
                self._steps.append((_APPLY[f.op], slot[f.number], args, freed))
                self._operators.append(f.op)
        self._steps.reverse()
        self._operators.reverse()
        self._size = len(order)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the symbols the results depend on."""
        return tuple(name for _, name in self._variables)

    @property
    def steps(self) -> list[tuple[str, Any, int, tuple[int, ...]]]:
        """Operator, its function, place of the result, places of the arguments: for evaluators of other kinds."""
        return [(op, apply, i, args) for op, (apply, i, args, _) in zip(self._operators, self._steps, strict=True)]

    @property
    def places(self) -> tuple[int, dict[str, int], list[tuple[int, Number]], list[int]]:
        """How many places there are, those of symbols and constants, and those of the results."""
        return self._size, {name: i for i, name in self._variables}, self._constants, self._results

    def __call__(self, env: Mapping[str, Any]) -> list[Any]:
        """Values of the outputs with symbols bound to numbers, arrays or tensors of one length.

        Results that do not depend on any array are plain numbers. IRTypeError names an unbound symbol.
        """
        slots: list[Any] = [None] * self._size
        for i, value in self._constants:
            slots[i] = value
        for i, name in self._variables:
            if name not in env:
                raise IRTypeError(f"knob {name!r} has no value", hint=f"bound are: {', '.join(env) or 'none'}")
            value = env[name]
            slots[i] = value.astype(np.float64) if isinstance(value, np.ndarray) else value
        for apply, i, args, last in self._steps:
            slots[i] = apply(*[slots[a] for a in args])
            for a in last:
                slots[a] = None  # its memory serves the next value while it is in the cache
        return [slots[i] for i in self._results]


def needed(outputs: Sequence[Formula]) -> list[Formula]:
    """The nodes of ``outputs`` and all they are made of, arguments first."""
    found = {f.number: f for f in outputs}
    left = list(found.values())
    while left:
        for x in left.pop().args:
            if x.number not in found:
                found[x.number] = x
                left.append(x)
    return [found[n] for n in sorted(found)]


def _is_tensor(x: Any) -> bool:
    return type(x).__module__ == "torch"


def _floordiv(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a // b
    if _is_tensor(a) or _is_tensor(b):
        import torch

        exact = torch.as_tensor(a / b)
        return exact + (torch.floor(exact.detach() + 1e-9) - exact).detach()
    return np.floor(a / b)


def _ceildiv(a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return -(-a // b)
    if _is_tensor(a) or _is_tensor(b):
        import torch

        exact = torch.as_tensor(a / b)
        return exact + (torch.ceil(exact.detach() - 1e-9) - exact).detach()
    return np.ceil(a / b)


def _min(a: Any, b: Any) -> Any:
    return _either(a, b, min, np.minimum, "minimum")


def _max(a: Any, b: Any) -> Any:
    return _either(a, b, max, np.maximum, "maximum")


def _either(a: Any, b: Any, plain: Any, array: Any, tensor: str) -> Any:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return array(a, b)
    if _is_tensor(a) or _is_tensor(b):
        import torch

        like = a if _is_tensor(a) else b
        return getattr(torch, tensor)(*(x if _is_tensor(x) else torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (a, b)))
    return plain(a, b)


def _where(c: Any, a: Any, b: Any) -> Any:
    if isinstance(c, np.ndarray):
        return np.where(c, a, b)
    if _is_tensor(c):
        import torch

        return torch.where(c if c.dtype == torch.bool else c != 0, a, b)
    return a if c else b


def _not(a: Any) -> Any:
    """Conditions are bools, or numbers picked by other conditions."""
    return a == 0


_APPLY: dict[str, Any] = {
    "add": operator.add,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": _floordiv,
    "ceildiv": _ceildiv,
    "min": _min,
    "max": _max,
    "le": operator.le,
    "and": operator.and_,
    "not": _not,
    "where": _where,
}
