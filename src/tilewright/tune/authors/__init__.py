"""The authors that come with Tilewright; each is a class called with (space, seed)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tilewright.tune.author import Author, SearchSpace
from tilewright.util.errors import TuneError

if TYPE_CHECKING:
    from tilewright.tune.ledger import Ledger
    from tilewright.tune.search import TunableSpace

#: Name on the command line: where the class lives, and what it does in one line.
AUTHORS: dict[str, tuple[str, str]] = {
    "xgb": ("xgb:XgbAuthor", "the analytical estimate, corrected by gradient-boosted trees on the knobs that learn from measurements"),
    "xgb-plain": ("xgb:PlainXgbAuthor", "the same trees without the estimate"),
    "xgb-features": ("xgb:FeatureXgbAuthor", "trees on features of statements, pre-trained on the estimate, refined on measurements"),
    "gradient": (
        "gradient:GradientAuthor",
        "descents of the estimate in real knobs, rounded to points; measurements correct it for each sketch",
    ),
    "analytical": ("analytical:AnalyticalAuthor", "the best by the analytical estimate, in its order"),
    "evolutionary": ("evolutionary:EvolutionaryAuthor", "mutation and crossover of the best, screened by the estimate"),
    "annealing": ("annealing:AnnealingAuthor", "simulated annealing, several chains at once"),
    "random": ("random:RandomAuthor", "valid points drawn at random"),
    "exhaustive": ("exhaustive:ExhaustiveAuthor", "every point of a small space"),
    "replay": ("replay:ReplayAuthor", "what records know to be good, here or on other shapes, measured again"),
}
#: The author whose points come from the records, to be measured again: trials that are recorded are not taken over beside it.
REPLAY = "replay"


def check_author(name: str) -> None:
    """TuneError, with the names there are, unless ``name`` is one of them."""
    if name not in AUTHORS:
        raise TuneError(f"there is no author {name!r}", hint=f"authors: {', '.join(AUTHORS)}")


def author_for(name: str, space: TunableSpace, seed: int, ledger: Ledger | None) -> Author:
    """The author called ``name`` for a search whose records are in ``ledger`` (None: it has none).

    TuneError for an unknown name, and when the author cannot search this space: it says why.
    """
    if name == REPLAY:
        return make_author(name, space, seed, points=ledger.known(space) if ledger is not None else ())
    return make_author(name, space, seed)


def make_author(name: str, space: SearchSpace, seed: int = 0, **options: Any) -> Author:
    """The author called ``name`` for ``space``; TuneError lists the names there are."""
    check_author(name)
    module, _, kind = AUTHORS[name][0].partition(":")
    author: Author = getattr(import_module(f"{__name__}.{module}"), kind)(space, seed, **options)
    return author
