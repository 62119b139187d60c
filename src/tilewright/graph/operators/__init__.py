"""Lowerings of ONNX operators, one file a family. To add an operator, write one decorated function.

``implementations`` finds every function marked with ``@operator`` in this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any


@cache
def implementations() -> Mapping[tuple[str, str], Callable[..., Any]]:
    """(domain, operator) -> lowering function, for every operator of this package."""
    found: dict[tuple[str, str], Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for f in vars(module).values():
            if (spec := getattr(f, "operator_spec", None)) is not None:
                found.update({(spec.domain, t): f for t in spec.types})
    return found
