"""Our co-design search against other searches, proven optima and Gemmini's default machine: one map space, one evaluator, one budget.

    python -m benchmarks.codesign --json out.json [--resume] [--networks ..] [--methods ..] [--seeds 0 1 2 3 4] [--budget 12000] [--cap]

The budget counts evaluations of one mapping of one layer, for each layer shape of a network; 12,000 is what the published descent
takes. All methods of a network get the same. The optimum is proven on about 1,000 machines, then on a finer grid around the best of them.
Gemmini's default machine (16 x 16, 256 + 64 KB) has the vendor library's tiles, and the proven best mappings: what is gained over
the latter is the machine's part alone. Eyeriss and NVDLA have their own families, costed on the same basis and mapped by search.
``--cap`` adds runs with no more area than that machine has; they are compared by evaluations. Other times are processor time of a search
on one thread, which other processes change little; wall clock is in the JSON. A method such as ``"dosa x10"`` is one with ten times the
budget: the published descent may not come within 1 % of the best known in less. ``--ablation`` adds the search without each of its parts
(``without descent`` ..); ``dosa+`` is the published descent with our other parts. ``--networks`` also takes operators: gemm, gemv, conv1d,
conv2d.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from benchmarks.report import Rows, Table, conditions, geometric_mean, parser, publish

from tilewright.codesign.baselines import BASELINES
from tilewright.codesign.baselines.mapper import elite_mutation
from tilewright.codesign.exact import optimum, proven
from tilewright.codesign.gradient import ablations, gradient
from tilewright.codesign.layer import KERNEL, Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.methods import METHODS
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.codesign.workloads import workload
from tilewright.cost.loopnest import LoopNest
from tilewright.cost.nestcost import NestModel
from tilewright.hw.library import eyeriss, nvdla
from tilewright.hw.library.gemmini import default as gemmini
from tilewright.hw.library.gemmini import family, hierarchy
from tilewright.hw.library.gemmini_costs import area
from tilewright.hw.load import load_family
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.default_mapping import default_nests

SECTION = "co-design"
NETWORKS = ("resnet50", "unet", "retinanet", "bert")
DEFAULT = {"dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10}
#: Published machines of other kinds: family and sizes. Evaluations that each layer's mapping gets on them.
GIVEN = {"NVDLA small": ("nvdla", nvdla.SMALL), "NVDLA large": ("nvdla", nvdla.LARGE), "Eyeriss": ("eyeriss", eyeriss.CHIP)}
MAPPED = 20_000
#: Gemmini's default machine with the tiles of the vendor's library.
LIBRARY = "default machine, library's tiles"
#: A search has arrived when it is within this of the best known.
NEAR = 1.01
#: Operators: some shapes each, one machine for all of them.
OPERATORS: dict[str, tuple[Layer, ...]] = {
    "gemm": tuple(
        Layer.gemm(f"{m}x{n}x{k}", m, n, k) for m, n, k in ((512, 512, 512), (128, 768, 3072), (1024, 1024, 256), (196, 1024, 256))
    ),
    "gemv": tuple(Layer.gemm(f"{n}x{k}", 1, n, k) for n, k in ((1024, 1024), (4096, 1024), (1000, 2048), (768, 3072))),
    "conv1d": tuple(
        Layer(f"{c}-{k}-{p}-{r}", {"K": k, "C": c, "P": p, "R": r})
        for c, k, p, r in ((64, 128, 256, 3), (128, 128, 128, 5), (512, 512, 64, 3))
    ),
    "conv2d": tuple(
        Layer(f"{c}-{k}-{p}-{r}", {"K": k, "C": c, "P": p, "Q": p, "R": r, "S": r})
        for c, k, p, r in ((64, 64, 56, 3), (128, 128, 28, 3), (256, 256, 14, 3), (64, 64, 28, 5))
    ),
}
#: The search without one of its parts.
PARTS = {f"without {part}": partial(gradient, settings=own) for part, own in ablations().items() if part != "nothing"}
SEARCHES: dict[str, Callable[[Run], None]] = {**METHODS, **PARTS}
KEY = ("network", "capped", "what", "seed")


def layers_of(network: str) -> tuple[Layer, ...]:
    """Those of an operator or a network."""
    return OPERATORS[network] if network in OPERATORS else workload(network)


def problem_of(network: str, capped: bool, hardware: Mapping[str, float] | None = None) -> Problem:
    """A network's energy-delay product, without a limit or with the default machine's area."""
    limits = Limits(area=float(area(DEFAULT)), area_model=area) if capped else Limits()
    return Problem(MapSpace(layers_of(network), family()), "edp", limits, hardware)


def times_of(what: str) -> tuple[str, int]:
    """The method, and how many times the budget it gets: ``dosa x10``."""
    method, _, times = what.partition(" x")
    return method, int(times or 1)


def searched(network: str, capped: bool, what: str, seed: int, budget: int) -> dict[str, Any]:
    """One run: its best, and how it got there."""
    problem, (method, times) = problem_of(network, capped), times_of(what)
    run = Run(problem, Budget(evaluations=times * budget * len(problem.space.layers)), seed)
    SEARCHES[method](run)
    hardware = {} if run.point is None else {k: float(v[0]) for k, v in problem.evaluate(run.point[None]).hardware.items()}
    row = {"network": network, "capped": capped, "what": what, "seed": seed, "best": run.best, "hardware": hardware}
    history = [[p.evaluations, round(p.processor, 4), p.best, round(p.seconds, 4)] for p in run.history]
    spent = {"evaluations": run.evaluations, "seconds": run.seconds, "processor": run.processor}
    return {**row, **spent, "history": history}


def optimal(network: str, capped: bool) -> dict[str, Any]:
    """The proven optimum, on the smallest machine that its mappings fit."""
    problem, start = problem_of(network, capped), time.monotonic()
    found = proven(problem)
    fitted = problem.evaluate(found.point[None])
    best = float(min(problem.score(fitted)[0], found.score))
    row = {"network": network, "capped": capped, "what": "optimum", "seed": 0, "best": best, "seconds": time.monotonic() - start}
    return {**row, "hardware": {k: float(v[0]) for k, v in fitted.hardware.items()}, "mappings": found.mappings, "kept": found.kept}


def default(network: str) -> dict[str, Any]:
    """Gemmini's default machine with the best mappings there are for it."""
    start = time.monotonic()
    found = optimum(problem_of(network, False, DEFAULT))
    row = {"network": network, "capped": False, "what": "default machine", "seed": 0, "best": found.score, "hardware": dict(DEFAULT)}
    return {**row, "seconds": time.monotonic() - start}


@cache
def _model(structure: LoopNest) -> NestModel:
    return NestModel(KERNEL, structure, hierarchy(), rounded=False)


def library(layer: Layer) -> tuple[float, float]:
    """Cycles and pJ of a layer on Gemmini's default machine with the vendor library's tiles."""
    p = layer.parameters
    steps = p if layer.sizes["R"] * layer.sizes["S"] > 1 else dict.fromkeys(p, 1)
    nests = list(default_nests(Configuration.of(gemmini), layer.sizes, (p["SH"], p["SW"]), (p["DH"], p["DW"])))
    found = [_model(x.structure())({**x.environment(), **DEFAULT, **steps}) for x in nests]
    return float(sum(f.cycles for f in found)), float(sum(f.energy for f in found))


def shipped(network: str) -> dict[str, Any]:
    """Gemmini's default machine as its library uses it."""
    layers, start = layers_of(network), time.monotonic()
    each = [library(x) for x in layers]
    latency, total = (sum(x.count * e[n] for x, e in zip(layers, each, strict=True)) for n in (0, 1))
    row = {"network": network, "capped": False, "what": LIBRARY, "seed": 0, "best": latency * total, "hardware": dict(DEFAULT)}
    return {**row, "seconds": time.monotonic() - start}


def given(network: str, what: str) -> dict[str, Any]:
    """A published machine of another kind, mapped by random search and mutations of the best."""
    kind, hardware = GIVEN[what]
    problem = Problem(MapSpace(layers_of(network), load_family(kind)), "edp", hardware=hardware)
    run = Run(problem, Budget(evaluations=MAPPED * len(problem.space.layers)), 0)
    elite_mutation(run)
    row = {"network": network, "capped": False, "what": what, "seed": 0, "best": run.best, "hardware": dict(hardware)}
    return {**row, "seconds": run.seconds}


def collect(
    rows: Rows,
    networks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    budget: int,
    caps: Sequence[bool],
    exact: bool,
    machines: Sequence[str] = tuple(GIVEN),
) -> None:
    """Make the rows that are not there yet."""
    wanted: list[tuple[tuple[Any, ...], Callable[[], dict[str, Any]]]] = []
    for network in networks:
        if exact:
            wanted.append(((network, False, "default machine", 0), partial(default, network)))
        wanted.append(((network, False, LIBRARY, 0), partial(shipped, network)))
        for what in machines:
            wanted.append(((network, False, what, 0), partial(given, network, what)))
        for capped in caps:
            if exact:
                wanted.append(((network, capped, "optimum", 0), partial(optimal, network, capped)))
            for seed in seeds:
                for method in methods:
                    wanted.append(((network, capped, method, seed), partial(searched, network, capped, method, seed, budget)))
    for n, (key, make) in enumerate(wanted):
        known = rows.find(*key)
        if known is None or ("budget" in known and known["budget"] != budget):
            row = make()
            rows.put({**row, "budget": budget} if "history" in row else row)
            print(
                f"{n + 1}/{len(wanted)} {' '.join(map(str, key))}: {row['best']:.4g}, {row['seconds']:.1f} s", file=sys.stderr, flush=True
            )


#: What a search spends.
_UNITS = {"evaluations": "evaluations", "processor": "processor time"}


def _unit(capped: bool) -> str:
    """In what searches are compared: within a limit in evaluations, which depend on nothing else that runs."""
    return "evaluations" if capped else "processor"


def tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table for each network with and without the limit of area, and one over all."""
    out = [_overview(results)]
    for capped in sorted({r["capped"] for r in results}):
        for network in dict.fromkeys(r["network"] for r in results if r["capped"] == capped and "history" in r):
            out.append(_network(network, capped, [r for r in results if r["network"] == network]))
    return out


def _best_known(rows: Sequence[Mapping[str, Any]], capped: bool) -> float:
    return min(r["best"] for r in rows if r["capped"] == capped and r["what"] not in ("default machine", LIBRARY, *GIVEN))


def _network(network: str, capped: bool, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Methods of one network: objective over the best known, evaluations and processor time until within 1 % of it."""
    own = [r for r in rows if r["capped"] == capped]
    best = _best_known(own, capped)
    lines, unit = [], _unit(capped)
    ours = [a[unit] for r in own if r["what"] == "gradient" and (a := arrival(r["history"], NEAR * best)) is not None]
    for method in dict.fromkeys(r["what"] for r in own if "history" in r):
        runs = [r for r in own if r["what"] == method]
        over = sorted(r["best"] / best for r in runs)
        arrived = [arrival(r["history"], NEAR * best) for r in runs]
        times = [a for a in arrived if a is not None]
        lines.append((method, *(f"{x:.3f}" for x in (over[0], float(np.median(over)), over[-1])), f"{len(times)} of {len(runs)}"))
        often = len(times) > len(runs) / 2
        evaluations = f"{np.median([a['evaluations'] for a in times]):,.0f}" if often else "never"
        spent = [a[unit] for a in times] if often else [r[unit] for r in runs]
        lines[-1] += (evaluations, f"{'' if often else 'over '}{np.median(spent) / np.median(ours):.1f}x" if ours else "")
    for what in ("optimum", "default machine", LIBRARY, *GIVEN):
        for r in rows:
            if r["what"] == what and (r["capped"] == capped or what != "optimum"):
                lines.append((what, *[f"{r['best'] / best:.3f}"] * 3, "", "", ""))
    columns = ("over the best known", "least", "median", "most", "within 1 %", "evaluations until then", f"{_UNITS[unit]}, over ours")
    limit = f", area at most {area(DEFAULT):.2f} mm2" if capped else ""
    return Table(f"{network}{limit}: energy-delay product", columns, tuple(lines))


def arrival(history: Sequence[Sequence[float]], most: float) -> dict[str, float] | None:
    """Evaluations and processor seconds when a search first was no worse than ``most``; None when it never was."""
    return next(({"evaluations": p[0], "processor": p[1]} for p in history if p[2] <= most), None)


def sooner(own: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]], unit: str) -> list[float]:
    """For each seed what the ``other`` search had spent when it had its best, over what ours had when it had one no worse (never: 0)."""
    out = []
    for seed, r in own.items():
        if seed in other and np.isfinite(best := other[seed]["best"]):
            theirs, ours = (arrival(x["history"], best) for x in (other[seed], r))
            assert theirs is not None  # the last of its history
            out.append(0.0 if ours is None else theirs[unit] / ours[unit])
    return out


def _overview(results: Sequence[Mapping[str, Any]]) -> Table:
    """For each network: the gradient's gap to what is proven, the worst seed against DOSA's, times, and what is gained over the default."""
    lines = []
    for capped in sorted({r["capped"] for r in results}):
        for network in dict.fromkeys(r["network"] for r in results if r["capped"] == capped and "history" in r):
            rows = [r for r in results if r["network"] == network]
            lines.append((network + (", area of the default" if capped else ""), *_line(rows, capped)))
    columns = (
        "network",
        "gap to the optimum",
        "most",
        "DOSA over ours",
        "least",
        "faster to 1 %",
        "to DOSA's best",
        "default over ours",
        "best mapped",
        "machine",
    )
    notes = (
        "Medians over seeds; the machine is that of the median seed: side, KB of scratchpad and accumulator. Faster to 1 %: processor time "
        "(within a limit of area evaluations) until within 1 % of the best known, DOSA's over ours; 'over' where most of DOSA's runs never "
        "were, for all they had. To DOSA's best: what DOSA had spent when it had its best, over what ours had when it was as good. "
        "Default over ours: Gemmini's default machine with its library's tiles; best mapped: with the proven best mappings.",
    )
    return Table("Co-design", columns, tuple(lines), notes)


def _line(rows: Sequence[Mapping[str, Any]], capped: bool) -> tuple[str, ...]:
    own = {r["seed"]: r for r in rows if r["what"] == "gradient" and r["capped"] == capped}
    if not own:
        return ("",) * 9
    exact = next((r["best"] for r in rows if r["what"] == "optimum" and r["capped"] == capped), None)
    fixed, library = (next((r["best"] for r in rows if r["what"] == what), None) for what in ("default machine", LIBRARY))
    bests = [r["best"] for r in own.values()]
    other = {r["seed"]: r for r in rows if r["what"] == "dosa" and r["capped"] == capped}
    pairs = [other[s]["best"] / r["best"] for s, r in own.items() if s in other]
    ratios = [x for x in pairs if np.isfinite(x)]  # DOSA may find nothing within a limit
    found = f" ({len(ratios)} of {len(pairs)} found one)" if len(ratios) < len(pairs) else ""
    best = _best_known(rows, capped)
    patient = [r for r in rows if r["capped"] == capped and times_of(r["what"])[0] == "dosa"]
    most = max((times_of(r["what"])[1] for r in patient), default=1)
    patient = [r for r in patient if times_of(r["what"])[1] == most]
    unit = _unit(capped)
    ours = [a[unit] for r in own.values() if (a := arrival(r["history"], NEAR * best)) is not None]
    theirs = [a[unit] for r in patient if (a := arrival(r["history"], NEAR * best)) is not None]
    faster = ""
    if patient and len(ours) > len(own) / 2:
        spent = float(np.median([r[unit] for r in patient]))
        faster = f"{np.median(theirs) / np.median(ours):.0f}x" if len(theirs) > len(patient) / 2 else f"over {spent / np.median(ours):.0f}x"
    as_good = sooner(own, other, unit)
    middle = sorted(own.values(), key=lambda r: r["best"])[len(own) // 2]["hardware"]
    machine = "/".join(f"{v / 1024:.0f}" if k.endswith("bytes") else f"{v:g}" for k, v in middle.items())
    return (
        f"{np.median(bests) / exact - 1:+.2%}" if exact else "",
        f"{max(bests) / exact - 1:+.2%}" if exact else "",
        f"{geometric_mean(ratios):.2f}x{found}" if ratios else "",
        f"{min(ratios):.2f}x" if ratios else "",
        faster,
        f"{np.median(as_good):.1f}x" if as_good else "",
        f"{library / np.median(bests):.2f}x" if library else "",
        f"{fixed / np.median(bests):.2f}x" if fixed else "",
        machine,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--resume", action="store_true", help="take over the rows of --json")
    p.add_argument("--networks", nargs="+", default=NETWORKS)
    p.add_argument("--methods", nargs="+", default=("gradient", *BASELINES), help=f"of {', '.join(SEARCHES)}; with more budget: 'dosa x10'")
    p.add_argument("--seeds", type=int, nargs="+", default=range(5), help="default: 0 1 2 3 4")
    p.add_argument("--budget", type=int, default=12_000, help="evaluations for each layer shape (default: %(default)s)")
    p.add_argument("--cap", action="store_true", help="also with the default machine's area as the limit")
    p.add_argument("--ablation", action="store_true", help="also our search without each of its parts")
    p.add_argument("--no-given", action="store_true", help="without Eyeriss and NVDLA")
    p.add_argument("--no-exact", action="store_true", help="without proven optima")
    options = p.parse_args(arguments)
    for method in options.methods:
        if times_of(method)[0] not in SEARCHES:
            p.error(f"there is no method {method!r}; there are: {', '.join(SEARCHES)}")
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    collect(
        rows,
        options.networks,
        (*options.methods, *(PARTS if options.ablation else ())),
        options.seeds,
        options.budget,
        (False, True) if options.cap else (False,),
        not options.no_exact,
        () if options.no_given else tuple(GIVEN),
    )
    publish(options, SECTION, tables(rows.rows), rows.conditions, rows.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
