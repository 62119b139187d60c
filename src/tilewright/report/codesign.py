"""A page about co-design: the machine found, what it is worth, how searches got there, and every layer's mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilewright.codesign.problem import Run
from tilewright.codesign.study import Study
from tilewright.report.cells import ratio, section, table
from tilewright.report.document import document, replace
from tilewright.report.markup import Content, Markup, join, tag
from tilewright.report.plot import Axis, Plot, legend
from tilewright.report.scale import log_scale
from tilewright.util.quantities import bytes_text, count_text, seconds_text

_NAMES = {
    "machine": "Machine",
    "networks": "Networks",
    "search": "Search",
    "pareto": "Pareto front",
    "roofline": "Roofline",
    "layers": "Layers",
}
_COLOURS = 6
#: What cycles are, by the name of their model.
CYCLES = {
    "roofline": "Cycles are the roofline's: arithmetic and every memory's port at once, the longest counts",
    "rtl": "Cycles are those fitted to the array's measured ones (rtl), or the roofline's where these are more",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a machine with its mappings comes to: cycles and pJ of the whole workload, the objective, square millimetres if known,
    samples a second of one network."""

    hardware: Mapping[str, float]
    cycles: float
    energy: float
    score: float
    area: float | None
    throughput: float | None


def figures(study: Study, run: Run) -> Figures | None:
    """Those of a run's best point; None when it found nothing."""
    if run.point is None:
        return None
    e = run.problem.evaluate(run.point[None])
    latency, energy = run.problem.totals(e.cycles, e.energy)
    hardware = {k: float(v[0]) for k, v in e.hardware.items()}
    model = study.problem.space.family.area
    area = None if model is None else float(model(hardware))
    samples = run.problem.throughput(float(latency[0, 0])) if len(run.problem.names) == 1 else None
    return Figures(hardware, float(latency.sum()), float(energy.sum()), run.best, area, samples)


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """One of the networks on a machine: how many layers it has, cycles and pJ of all of them, its own objective."""

    name: str
    layers: int
    cycles: float
    energy: float
    score: float


def networks(run: Run) -> tuple[NetworkFigures, ...]:
    """Those of a run's best point, in the problem's order; empty when it found nothing."""
    if run.point is None:
        return ()
    problem = run.problem
    e = problem.evaluate(run.point[None])
    cycles, energy = (v[0].tolist() for v in problem.totals(e.cycles, e.energy))
    scores = np.exp(problem.values(e.cycles, e.energy)[0]).tolist()
    layers = problem.networks.sum(axis=1).astype(int).tolist()
    return tuple(map(NetworkFigures, problem.names, layers, cycles, energy, scores))


def write(study: Study, path: Path, name: str, reference: Run | None = None) -> None:
    """Write the page. ``reference``: a run on a machine that is given, to compare with. RuntimeFailure when ``path`` cannot be written."""
    replace(path, page(study, name, reference))


def page(study: Study, name: str, reference: Run | None = None) -> str:
    """The HTML document."""
    parts = [_machine(study, reference), _networks(study, reference), _curves(study), _pareto(study), _roofline(study), _layers(study)]
    count = sum(x.count for x in study.layers)
    several = f" of {len(study.problem.names)} networks" if len(study.problem.names) > 1 else ""
    searched = f"{study.run.evaluations:,} mappings of layers evaluated"
    summary = f"{count} layers{several}, of {len(study.layers)} shapes; {searched}. {CYCLES[study.cycles]}."
    return document(f"Co-design: {name}", summary, parts, _NAMES)


def _size(name: str, value: float) -> str:
    return bytes_text(value) if name.endswith("_bytes") else f"{value:g}"


def _machine(study: Study, reference: Run | None) -> Markup:
    """A row for each method and the reference; ratios to the first."""
    runs, own = compared(study, reference), figures(study, study.run)
    if own is None:
        return section("Machine", "machine", tag("p", "No mappings within the limits were found."))
    columns = ["found by", *own.hardware, "area", "cycles", "energy", "objective", "over the first", "evaluations", "seconds"]
    rows: list[list[Content]] = []
    for name, run in runs.items():
        f = figures(study, run)
        if f is None:
            rows.append([name, *[None] * (len(columns) - 3), f"{run.evaluations:,}", f"{run.seconds:.1f}"])
            continue
        sizes = [_size(k, v) for k, v in f.hardware.items()]
        area = None if f.area is None else f"{f.area:.2f} mm²"
        worth = count_text(f.cycles), f"{f.energy * 1e-9:.3g} mJ", f"{f.score:.4g}", ratio(f.score / own.score)
        spent = f"{run.history[-1].seconds:.1f}" if run.history else None
        rows.append([name, *sizes, area, *worth, f"{run.evaluations:,}", spent])
    note = f"Cycles and energy are the analytical model's, for {samples(study)}. {CYCLES[study.cycles]}. Seconds: until the best was found."
    return section("Machine", "machine", table("What was found", columns, rows, columns[1:]), tag("p", note, class_="note"))


def samples(study: Study) -> str:
    """What cycles and energy are of, and of one network how many samples a second that is."""
    problem, own = study.problem, figures(study, study.run)
    what = "the whole workload" if problem.batch == 1 else f"a batch of {problem.batch} samples"
    if own is None or own.throughput is None:
        return what
    return f"{what} ({count_text(own.throughput)} samples a second at {problem.limits.clock_hz / 1e9:g} GHz)"


def compared(study: Study, reference: Run | None) -> dict[str, Run]:
    """All runs by the name of their method, and the reference."""
    return {**study.runs, **({} if reference is None else {"given machine": reference})}


def _networks(study: Study, reference: Run | None) -> Markup:
    """Each of several networks on each machine; ratios to the first."""
    own = networks(study.run)
    if len(own) < 2:
        return Markup()
    columns = ["network", "found by", "layers", "cycles", "energy", "objective", "over the first"]
    rows: list[list[Content]] = []
    for name, run in compared(study, reference).items():
        for first, f in zip(own, networks(run), strict=False):
            worth = count_text(f.cycles), f"{f.energy * 1e-9:.3g} mJ", f"{f.score:.4g}", ratio(f.score / first.score)
            rows.append([f.name, name, str(f.layers), *worth])
    note = "The objective of all is the geometric mean of the networks' own."
    return section("Networks", "networks", table("Each network", columns, rows, columns[2:]), tag("p", note, class_="note"))


def _curves(study: Study) -> Markup:
    """Best score against evaluations, and against seconds: only those count choices from mappings that are known already."""
    shown = {name: run for name, run in study.runs.items() if run.history}
    if not shown:
        return Markup()
    styles = {name: f"c{n % _COLOURS}" for n, name in enumerate(shown)}
    spent = {name: [(float(max(p.evaluations, 1)), p.best) for p in run.history] for name, run in shown.items()}
    spent = {name: [*points, (float(shown[name].evaluations), shown[name].best)] for name, points in spent.items()}
    passed = {name: [(max(p.seconds, 1e-3), p.best) for p in run.history] for name, run in shown.items()}
    keys = legend([(f"line {style}", name) for name, style in styles.items()])
    plots = _curve("evaluations of a mapping of a layer", count_text, spent, styles), _curve("seconds", seconds_text, passed, styles)
    return section("Search", "search", keys, *(tag("figure", p.svg()) for p in plots))


def _curve(label: str, text: Callable[[float], str], lines: Mapping[str, Sequence[tuple[float, float]]], styles: Mapping[str, str]) -> Plot:
    x, y = (log_scale([point[n] for points in lines.values() for point in points]) for n in range(2))
    plot = Plot("Best objective", "Lower is better.", Axis(label, x, text), Axis("", y, _short), 640, 320, 80)
    for name, points in lines.items():
        plot.steps(points, styles[name], name)
    return plot


def _pareto(study: Study) -> Markup:
    """Latency and energy of points of which none is better in all respects; the third respect is area or the machine's parameters."""
    front = study.run.front
    if front is None or not len(front.values):
        return Markup()
    cycles, energy = front.values[:, 0], front.values[:, 1] * 1e-9
    plot = Plot(
        "Pareto front", f"{len(front.values)} points.",
        Axis("cycles", log_scale(cycles.tolist()), count_text), Axis("energy, mJ", log_scale(energy.tolist()), _short), 640, 340, 80,
    )  # fmt: skip
    plot.dots(list(zip(cycles.tolist(), energy.tolist(), strict=True)), "c0", "none better in all respects")
    if (own := figures(study, study.run)) is not None:
        plot.ring((own.cycles, own.energy * 1e-9), "winner", "the best by the objective")
    words = "Dots: no other point met has fewer cycles, less energy and less area at once (less of each parameter where area has no model)."
    return section("Pareto front", "pareto", tag("figure", plot.svg()), tag("p", words, class_="note"))


@dataclass(frozen=True, slots=True)
class _LayerFigures:
    intensity: float
    rate: float
    limit: str
    spread: float


def _of_layers(study: Study) -> list[_LayerFigures]:
    """For each layer: operations for a word of main memory, operations a cycle, what takes longest, units in use."""
    ev, e = study.problem.evaluator, study.evaluation
    usage, h = ev.usage(study.point[None]), study.problem.space.family.hierarchy
    machine, out = study.hardware, []
    outermost = h.levels[0].name
    for x, layer in enumerate(study.layers):
        times = {"arithmetic": float(usage.steps[0, x])}
        for s in h.levels:
            if s.words_per_cycle is not None:
                rate = h.rate(s.words_per_cycle, machine) * usage.instances[s.name][0, x]
                times[s.name] = float(usage.words[s.name][0, x] / rate)
        operations = float(layer.operations)
        words = float(usage.words[outermost][0, x])
        spread = operations / times["arithmetic"]
        out.append(_LayerFigures(operations / words, operations / float(e.cycles[0, x]), max(times, key=lambda k: times[k]), spread))
    return out


def _roofline(study: Study) -> Markup:
    found = _of_layers(study)
    h, machine = study.problem.space.family.hierarchy, study.hardware
    bandwidth = float(h.rate(h.levels[0].words_per_cycle or np.inf, machine))
    peak = max(f.spread for f in found)
    intensities = [f.intensity for f in found] + ([peak / bandwidth] if np.isfinite(bandwidth) else [])
    rates = [f.rate for f in found] + [peak]
    x, y = log_scale(intensities, 1.6), log_scale(rates, 1.6)
    axes = Axis(f"multiply-adds for a word of {h.levels[0].name}", x, _short), Axis("multiply-adds a cycle", y, _short)
    plot = Plot("Layers", "One ring for each layer.", *axes, 640, 360, 80)
    if np.isfinite(bandwidth):
        knee = peak / bandwidth
        plot.line(
            [(x.low, x.low * bandwidth), (min(knee, x.high), min(peak, x.high * bandwidth)), (x.high, min(peak, x.high * bandwidth))],
            "roof",
            "limits",
        )
    for layer, f in zip(study.layers, found, strict=True):
        plot.ring((f.intensity, f.rate), "winner", f"{layer.name}: {f.rate:.0f} a cycle, limited by {f.limit}")
    return section("Roofline", "roofline", tag("figure", plot.svg()))


def _layers(study: Study) -> Markup:
    e, found = study.evaluation, _of_layers(study)
    columns = ("layer", "count", "sizes", "cycles", "energy", "part of cycles", "units", "limited by", "mapping")
    total = float((e.cycles[0] * study.problem.networks.sum(axis=0)).sum())
    rows: list[Sequence[Content]] = []
    for x, (layer, f, nest) in enumerate(zip(study.layers, found, study.nests, strict=True)):
        sizes = " ".join(f"{d}{n}" for d, n in layer.sizes.items() if n > 1)
        cycles = float(e.cycles[0, x])
        costs = count_text(cycles), f"{e.energy[0, x] * 1e-6:.3g} µJ", f"{cycles * layer.count / total:.1%}"
        rows.append((layer.name, str(layer.count), sizes, *costs, f"{f.spread:.0f}", f.limit, tag("code", str(nest))))
    return section("Layers", "layers", table("Each layer and its mapping", columns, rows, columns[3:7]), _legend())


def _legend() -> Markup:
    words = "A mapping's levels stand from main memory in, with the tensors kept; loops from outer to inner, X: over units side by side."
    return join(tag("p", words, class_="note"))


def _short(value: float) -> str:
    return f"{value:.3g}"
