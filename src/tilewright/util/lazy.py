"""Public names of packages that load on first use: importing a package must cost next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of ``package``; ``home`` says of each public name in which module below the package it is.

    Type checkers see none of this: the package imports the same names under ``if TYPE_CHECKING``.
    """

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return load, listed
