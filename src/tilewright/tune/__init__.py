"""Searching schedule spaces by measurement: authors propose points, workers try them, sessions keep the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

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

if TYPE_CHECKING:
    from tilewright.tune.author import Author, History
    from tilewright.tune.authors import AUTHORS, make_author
    from tilewright.tune.search import Search, Trial
    from tilewright.tune.session import Progress, TuneResult, tune
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
