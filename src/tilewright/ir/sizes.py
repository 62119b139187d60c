"""Operators on sizes, the same for Python numbers, NumPy arrays with one entry a candidate, and torch tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from tilewright.util.errors import IRTypeError

_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def apply(op: str, a: Any, b: Any) -> Any:
    """``a op b`` for arithmetic, ``min``, ``max`` and comparisons. IRTypeError for any other operator."""
    if op in ("min", "max"):
        return _extremum(op, a, b)
    if op not in _PLAIN:
        raise IRTypeError(f"operator {op} is not defined on sizes")
    return _PLAIN[op](a, b)


def choose(cond: Any, a: Any, b: Any) -> Any:
    """``a`` where ``cond`` holds, else ``b``: entry by entry where ``cond`` has several."""
    if isinstance(cond, bool):
        return a if cond else b
    if _is_tensor(cond):
        import torch

        return torch.where(cond, a, b)
    import numpy as np

    return np.where(cond, a, b)


def _extremum(op: str, a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return min(a, b) if op == "min" else max(a, b)
    if _is_tensor(a) or _is_tensor(b):
        import torch

        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return torch.minimum(a, b) if op == "min" else torch.maximum(a, b)
    import numpy as np

    return np.minimum(a, b) if op == "min" else np.maximum(a, b)


def _is_tensor(x: Any) -> bool:
    return type(x).__module__.startswith("torch")
