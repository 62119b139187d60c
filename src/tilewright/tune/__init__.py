"""Searching schedule spaces by measurement: authors propose points, workers try them, sessions keep the best."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.tune.author import Author, History
    from tilewright.tune.authors import AUTHORS, make_author
    from tilewright.tune.search import Search, Trial
    from tilewright.tune.session import Progress, TuneResult, tune

_HOME = {
    "AUTHORS": "authors",
    "Author": "author",
    "History": "author",
    "Progress": "session",
    "Search": "search",
    "Trial": "search",
    "TuneResult": "session",
    "make_author": "authors",
    "tune": "session",
}

__all__ = ["AUTHORS", "Author", "History", "Progress", "Search", "Trial", "TuneResult", "make_author", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
