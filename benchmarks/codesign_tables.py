"""Operators and the parts of the search as a thesis tabulates them (its tables 6.6 and 6.7), our figures beside its own.

    python -m benchmarks.codesign_tables --json out.json [--resume] [--cases 12] [--seeds 0 1 2] [--budget 5000]

Operators are drawn from Llama2-7B, GPT-2 and ViT-B/16 (1 to 8 sequences of up to 512 tokens), one-dimensional and plain convolutions
from ResNet-50, U-Net and RetinaNet. Every machine is costed by one model, and every search gets as many evaluations for a layer.
A machine is found for each operator alone, or one for all of a class (the geometric mean of their products counts); without a
limit, or with no more area than Gemmini's default machine. That one has the vendor library's tiles, or the best mappings a search finds.

All figures follow from seeds: they are the same on any machine, busy or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from benchmarks.codesign import DEFAULT, GIVEN, library
from benchmarks.report import Rows, Table, conditions, geometric_mean, parser, publish

from tilewright.codesign.architectures import resnet50, retinanet, unet
from tilewright.codesign.baselines.dosa import dosa
from tilewright.codesign.baselines.genetic import genetic
from tilewright.codesign.baselines.mapper import elite_mutation
from tilewright.codesign.gradient import Settings, gradient
from tilewright.codesign.layer import Layer, unique
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.codesign.workloads import workload
from tilewright.hw.library.gemmini import family
from tilewright.hw.library.gemmini_costs import area
from tilewright.hw.load import load_family

SECTION = "co-design tables"
KEY = ("table", "case", "what", "seed")
#: Searches of a machine with mappings; "one": for all operators of a class; "capped": with the default machine's area.
SEARCHES: dict[str, Callable[[Run], None]] = {"ours": gradient, "DOSA": dosa}
LIBRARY, MAPPED = "Gemmini default, library's tiles", "Gemmini default, searched"
#: Energy-delay products over ours that the thesis has.
PUBLISHED = {
    "gemm": {"Eyeriss": 13.95, "NVDLA small": 28.87, "NVDLA large": 3.96, LIBRARY: 4.89, "DOSA": 1.48},
    "gemv": {"Eyeriss": 16.72, "NVDLA small": 35.56, "NVDLA large": 4.18, LIBRARY: 5.42, "DOSA": 1.91},
    "conv1d": {"Eyeriss": 7.52, "NVDLA small": 19.81, "NVDLA large": 2.58, LIBRARY: 3.47, "DOSA": 1.43},
    "conv2d": {"Eyeriss": 8.49, "NVDLA small": 20.05, "NVDLA large": 3.42, LIBRARY: 3.99, "DOSA": 1.28},
}
MACHINES = ("Eyeriss", "NVDLA small", "NVDLA large", LIBRARY, MAPPED, "DOSA", "ours")
#: The parts of the search, each with those before it; and what the thesis gains with them.
PARTS: dict[str, tuple[float, Callable[[Run], None] | None, bool]] = {
    "library's tiles on the default machine": (1.0, None, True),
    "+ mappings searched": (1.44, elite_mutation, True),
    "+ machine inferred": (1.87, genetic, False),
    "+ descent by the model's gradient": (
        1.98,
        partial(gradient, settings=Settings(combine=False, refine=False, starts=8, steps=300, interval=50, share=1.0)),
        False,
    ),
    "+ learned correction": (2.17, None, False),
    "+ importance of layers": (
        2.32,
        partial(gradient, settings=Settings(combine=False, refine=False, starts=8, steps=300, interval=50)),
        False,
    ),
    "+ combination and refinement (ours)": (np.nan, gradient, False),
}


def operators(cases: int) -> dict[str, list[Layer]]:
    """``cases`` shapes of each class, drawn once and for all."""
    rng = np.random.default_rng(2024)
    everything = {name: list(unique(tuple(_products(rng, name == "gemv")))) for name in ("gemm", "gemv")}
    windows = unique(tuple(x for net in (resnet50(), unet(), retinanet()) for x in net if x.sizes["P"] > 1))
    everything["conv2d"] = list(windows)
    lines = (Layer(x.name, {d: x.sizes[d] for d in "KCPR"}, {"SH": x.parameters["SH"]}) for x in windows if x.sizes["R"] > 1)
    everything["conv1d"] = list(unique(tuple(lines)))
    return {
        name: [own[n] for n in sorted(rng.choice(len(own), min(cases, len(own)), replace=False))]
        for name, own in sorted(everything.items(), key=lambda item: list(PUBLISHED).index(item[0]))
    }


def _products(rng: np.random.Generator, vectors: bool) -> Iterator[Layer]:
    """Products of transformers: weights with the rows of all sequences, attention of one head; with one new token for ``vectors``."""
    for name, (width, hidden, head, words) in {
        "llama2-7b": (4096, 11008, 128, 32000),
        "gpt2": (768, 3072, 64, 50257),
        "vit-b16": (768, 3072, 64, 1000),
    }.items():
        for batch in (1, 2, 4, 8):
            tokens = 197 if name == "vit-b16" else int(2 ** rng.integers(1, 10))
            rows = 1 if vectors else batch * tokens
            shapes = {"projection": (width, width), "up": (hidden, width), "down": (width, hidden)}
            if vectors:
                shapes["vocabulary"] = words, width
            if not vectors or batch == 1:
                for part, (n, k) in shapes.items():
                    yield Layer.gemm(f"{name}.{part}.{rows}", rows, n, k)
            new, seen = 1 if vectors else tokens, batch * tokens if vectors else tokens
            yield Layer.gemm(f"{name}.scores.{seen}", new, seen, head)
            yield Layer.gemm(f"{name}.values.{seen}", new, head, seen)


# --- costs --------------------------------------------------------------------------------------


def _limits(capped: bool) -> Limits:
    return Limits(area=float(area(DEFAULT)), area_model=area) if capped else Limits()


def _best(run: Run) -> np.ndarray:
    """Cycles and pJ of the best point's layers [layers, 2], infinite when none was within the limits."""
    if run.point is None:
        return np.full((len(run.space.layers), 2), np.inf)
    e = run.problem.evaluate(run.point[None])
    return np.stack([e.cycles[0], e.energy[0]], axis=1)


def searched(layers: Sequence[Layer], method: Callable[[Run], None], seed: int, budget: int, capped: bool) -> np.ndarray:
    """Costs [layers, 2] on a machine found for ``layers``; of several the geometric mean of their products is minimised."""
    problem = Problem(MapSpace(layers, family()), "edp", _limits(capped), networks=np.eye(len(layers)).tolist())
    run = Run(problem, Budget(evaluations=budget * len(layers)), seed)
    method(run)
    return _best(run)


def mapped(layer: Layer, kind: str, hardware: Mapping[str, float], seed: int, budget: int) -> np.ndarray:
    """Costs [1, 2] of a layer on a given machine, its mapping searched."""
    run = Run(Problem(MapSpace([layer], load_family(kind)), "edp", hardware=hardware), Budget(evaluations=budget), seed)
    elite_mutation(run)
    return _best(run)


def operator_rows(
    name: str, layers: Sequence[Layer], seeds: Sequence[int], budget: int
) -> Iterator[tuple[tuple[str, str, int], Callable[[], list[dict[str, Any]]]]]:
    """Case, machine and seed, and what makes its rows. Machines that are given are mapped once, with seed 0."""

    def made(own: Sequence[Layer], what: str, seed: int, find: Callable[[], np.ndarray]) -> list[dict[str, Any]]:
        costs = find()
        row = {"table": name, "what": what, "seed": seed}
        return [{**row, "case": x.name, "cycles": float(c), "energy": float(e)} for x, (c, e) in zip(own, costs, strict=True)]

    given = {MAPPED: ("gemmini", DEFAULT), **GIVEN}
    for layer in layers:
        yield (layer.name, LIBRARY, 0), partial(made, [layer], LIBRARY, 0, lambda layer=layer: np.array([library(layer)]))  # type: ignore[misc]
        for what, (kind, hardware) in given.items():
            yield (layer.name, what, 0), partial(made, [layer], what, 0, partial(mapped, layer, kind, hardware, 0, budget))
    for (what, method), capped, seed in product(SEARCHES.items(), (False, True), seeds):
        full = _named(what, capped, False)
        for layer in layers:
            yield (layer.name, full, seed), partial(made, [layer], full, seed, partial(searched, [layer], method, seed, budget, capped))
        full = _named(what, capped, True)
        yield (layers[0].name, full, seed), partial(made, layers, full, seed, partial(searched, layers, method, seed, budget, capped))


def _named(what: str, capped: bool, one: bool) -> str:
    return what + (", capped" if capped else "") + (", one machine" if one else "")


def part_row(part: str, capped: bool, seed: int, budget: int) -> dict[str, Any]:
    """ResNet-50 with some parts of the search."""
    _, method, fixed = PARTS[part]
    layers = workload("resnet50")
    if method is None:
        each = [library(x) for x in layers]
        latency, total = (sum(x.count * e[k] for x, e in zip(layers, each, strict=True)) for k in (0, 1))
        best = latency * total
    else:
        problem = Problem(MapSpace(layers, family()), "edp", _limits(capped), DEFAULT if fixed else None)
        run = Run(problem, Budget(evaluations=budget * len(layers)), seed)
        method(run)
        best = run.best
    return {"table": "parts", "case": "capped" if capped else "free", "what": part, "seed": seed, "best": best}


# --- rows and tables ----------------------------------------------------------------------------


def collect(rows: Rows, cases: int, seeds: Sequence[int], budget: int) -> None:
    """Make the rows that are not there yet."""
    for part, (_, method, _) in PARTS.items():
        for capped in (False, True):
            for seed in seeds:
                if (method is not None or part == next(iter(PARTS))) and rows.find(
                    "parts", "capped" if capped else "free", part, seed
                ) is None:
                    rows.put(part_row(part, capped, seed, budget))
                    print(f"parts: {part}{', capped' if capped else ''}, seed {seed}", file=sys.stderr, flush=True)
    for name, layers in operators(cases).items():
        for (case, what, seed), make in operator_rows(name, layers, seeds, budget):
            if rows.find(name, case, what, seed) is None:
                for row in make():
                    rows.put(row)
                print(f"{name}: {case}, {what}, seed {seed}", file=sys.stderr, flush=True)


def tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Operators, one table for each class; and the parts of the search."""
    named = {r["table"] for r in results}
    out = [_operator_table(name, [r for r in results if r["table"] == name]) for name in PUBLISHED if name in named]
    return [*out, _parts_table([r for r in results if r["table"] == "parts"])] if "parts" in named else out


def _operator_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    cases = list(dict.fromkeys(r["case"] for r in rows))
    costs: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for r in rows:
        if np.isfinite(r["cycles"]):
            costs.setdefault((r["what"], r["seed"]), {})[r["case"]] = np.array([r["cycles"], r["energy"]])

    seeds = sorted({seed for _, seed in costs})

    def over(what: str, suffix: str) -> str:
        """Geometric means over operators, of all seeds and least and most of one. A machine that is given has one seed for all of ours."""
        ratios = []
        for seed in seeds:
            mine = costs.get((what + suffix, seed) if what in SEARCHES else (what, 0), {})
            best = costs.get(("ours" + suffix, seed), {})
            ratios.append([float(mine[c].prod() / best[c].prod()) for c in cases if c in mine and c in best])
        every = [x for own in ratios for x in own]
        if not every:
            return "none found"
        means = sorted((f"{geometric_mean(own):.2f}" for own in ratios if own), key=float)
        spread = f", {means[0]} to {means[-1]}" if means[0] != means[-1] else ""
        found = f" ({len(every)} of {len(cases) * len(seeds)})" if len(every) < len(cases) * len(seeds) else ""
        return f"{geometric_mean(every):.2f}x{spread}{found}"

    lines = []
    for what in MACHINES:
        found = [c for (name, _), own in costs.items() if name == what for c in own.values()]
        cycles, energy = (geometric_mean([float(c[n]) for c in found]) for n in (0, 1))
        cells = [f"{cycles:,.0f}", f"{energy / 1e6:,.1f}"]
        cells += [over(what, _named("", capped, one)) for one, capped in product((False, True), repeat=2)]
        published = PUBLISHED[name].get(what, 1.0 if what == "ours" else None)
        lines.append((what, *cells, "" if published is None else f"{published:.2f}x"))
    columns = ("machine", "cycles", "uJ", "EDP over ours", "area limited", "one machine", "one, area limited", "thesis")
    several = f"and of seeds {', '.join(map(str, seeds))}; then the least and most of one seed, where they differ"
    drawn = several if len(seeds) > 1 else f"seed {seeds[0]}"
    notes = (
        f"Geometric means of {len(cases)} operators, {drawn}. Cycles and energy without a limit and with a machine for each operator. "
        f"Area limited: to {area(DEFAULT):.2f} mm2, that of Gemmini's default machine. One machine: for all of them. "
        "(n of m), none found: no mappings within the limit were, of operators and seeds.",
    )
    return Table(f"{name}: energy-delay product over ours", columns, tuple(lines), notes)


def _parts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    first = next(iter(PARTS))
    for part, (published, _, _) in PARTS.items():
        cells = []
        for case in ("free", "capped"):
            base = [r["best"] for r in rows if r["case"] == case and r["what"] == first]
            gains = sorted(base[0] / r["best"] for r in rows if r["case"] == case and r["what"] == part)
            if not gains:
                cells += ["not used", ""]
            elif np.median(gains) == 0:
                cells += ["none found", ""]
            else:
                cells += [f"{np.median(gains):.2f}x", f"{gains[0]:.2f} to {gains[-1]:.2f}"]
        lines.append((part, *cells, "" if np.isnan(published) else f"{published:.2f}x"))
    seeds = sorted({r["seed"] for r in rows})
    columns = ("search", "gain", "seeds", "gain, area limited", "seeds", "thesis")
    notes = (f"Medians of seeds {', '.join(map(str, seeds))}. The learned correction is left out: it does not choose better mappings.",)
    return Table("ResNet-50: what each part of the search gains over the default", columns, tuple(lines), notes)


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser(__doc__, SECTION)
    p.add_argument("--resume", action="store_true", help="take over the rows of --json")
    p.add_argument("--cases", type=int, default=12, help="operators of each class (default: %(default)s)")
    p.add_argument("--seeds", type=int, nargs="+", default=range(3), help="of all searches (default: 0 1 2)")
    p.add_argument("--budget", type=int, default=5_000, help="evaluations for each layer shape (default: %(default)s)")
    options = p.parse_args(arguments)
    rows = Rows(options.json, KEY, conditions(), resume=options.resume)
    collect(rows, options.cases, options.seeds, options.budget)
    publish(options, SECTION, tables(rows.rows), rows.conditions, rows.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
