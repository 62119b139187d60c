"""Search methods that our co-design search is compared with: same map space, same evaluator, same budget."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codesign.baselines.bayes import gaussian_process, tree_parzen
from tilewright.codesign.baselines.dosa import combined, dosa
from tilewright.codesign.baselines.genetic import genetic
from tilewright.codesign.baselines.loops import random_search, two_loop
from tilewright.codesign.problem import Run

#: Methods by name.
BASELINES: dict[str, Callable[[Run], None]] = {
    "random": random_search,
    "tpe": tree_parzen,
    "gp": gaussian_process,
    "genetic": genetic,
    "dosa": dosa,
    "dosa+": combined,
    "two-loop": two_loop,
}
