"""The search methods, all of one form: a function that spends the budget of a run."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codesign.baselines import BASELINES
from tilewright.codesign.exact import proven
from tilewright.codesign.gradient import gradient, within_limits
from tilewright.codesign.problem import Run


def exact(run: Run) -> None:
    """No search: the proven optimum (:func:`tilewright.codesign.exact.proven`), whatever the budget. Minutes for large networks."""
    found = proven(run.problem)
    run.evaluate(found.point[None])
    run.charge(found.mappings)


#: Search methods by name; the first is the product's.
METHODS: dict[str, Callable[[Run], None]] = {"gradient": gradient, **BASELINES, "exact": exact}


def search(method: Callable[[Run], None], run: Run) -> None:
    """Run a ``method``. Where it finds nothing within the limits, what keeps them best is its result (:func:`within_limits`)."""
    method(run)
    if run.point is None and run.problem.limited:
        within_limits(run)
