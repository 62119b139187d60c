"""The fusion plan: operators as they depend on one another, kernels as boxes around those they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.model import Graph
from tilewright.graph.network import Network, Step
from tilewright.report.cells import duration, folded, section, short, table
from tilewright.report.findings import Findings, TaskFindings
from tilewright.report.markup import Markup, number, tag
from tilewright.report.split import hue
from tilewright.runtime.records import Task
from tilewright.util.quantities import seconds_text

#: Operators of a drawing; what is larger is shown as a table only.
LARGEST = 1500
_WIDTH, _ROW, _HEAD, _PAD, _GAP, _LAYER = 168.0, 20.0, 18.0, 6.0, 18.0, 30.0


@dataclass(frozen=True, slots=True)
class Box:
    """Where a group is drawn: its top left corner, and its size."""

    x: float
    y: float
    width: float
    height: float


def dependences(graph: Graph) -> list[tuple[int, int]]:
    """(producer, consumer) positions of operations: each value read, from the last operation that wrote it."""
    writer: dict[str, int] = {}
    edges: dict[tuple[int, int], None] = {}
    for i, op in enumerate(graph.operations):
        for name in op.inputs:
            if (source := writer.get(graph.storage(name))) is not None:
                edges[source, i] = None
        for name in op.outputs:
            writer[graph.storage(name)] = i
    return list(edges)


def lay_out(groups: Sequence[Sequence[int]], edges: Sequence[tuple[int, int]]) -> list[Box]:
    """Boxes of ``groups`` (in execution order): below all they depend on, near them, beside one another."""
    home = {op: g for g, members in enumerate(groups) for op in members}
    before: list[list[int]] = [[] for _ in groups]
    for a, b in edges:
        if home[a] != home[b]:
            before[home[b]].append(home[a])
    layers: dict[int, list[int]] = {}
    depth = [0] * len(groups)
    for g in range(len(groups)):
        depth[g] = 1 + max((depth[p] for p in before[g]), default=-1)
        layers.setdefault(depth[g], []).append(g)
    boxes: dict[int, Box] = {}
    y = 0.0
    for level in sorted(layers):
        wishes = {g: _mean([boxes[p].x for p in before[g]]) for g in layers[level]}
        places: dict[int, float] = {}
        right = float("-inf")
        for g in sorted(wishes, key=lambda g: (wishes[g], g)):
            places[g] = max(wishes[g], right)
            right = places[g] + _WIDTH + _GAP
        shift = _mean([wishes[g] - places[g] for g in places])  # beside one another, but around where they wish to be
        for g, x in places.items():
            boxes[g] = Box(x + shift, y, _WIDTH, _HEAD + len(groups[g]) * _ROW + _PAD)
        y += max(boxes[g].height for g in layers[level]) + _LAYER
    left = min((b.x for b in boxes.values()), default=0.0)
    return [Box(b.x - left + _GAP, b.y + _GAP, b.width, b.height) for _, b in sorted(boxes.items())]


def fusion_plan(network: Network, findings: Findings | None = None) -> Markup:
    """The drawing, and a table of the kernels; with ``findings``, what tuning did to each."""
    tuned = matches(network, findings) if findings is not None else {}
    numbers = _numbers(network.steps)
    plan = network.fusion
    parts: list[Markup] = []
    if plan is not None and len(network.graph.operations) <= LARGEST:
        parts.append(tag("div", _drawing(network, plan.groups, numbers, tuned), class_="plan", tabindex="0"))
    else:
        parts.append(
            tag("p", f"{len(network.graph.operations)} operators: too many to draw, or their groups are not known.", class_="note")
        )
    summary = f"{network.graph.name}: {len(network.graph.operations)} operators, {len(network.steps)} kernel calls, "
    summary += f"{len(set(numbers))} distinct kernels." + (f" Divided by {plan}." if plan is not None else "")
    if findings is not None and (missing := len(network.steps) - len(tuned)):
        words = f"{missing} of {len(network.steps)} kernel calls are not among the tasks shown here: never measured, or divided otherwise "
        parts.append(tag("p", words + "when they were tuned (--fusion, --layouts, --dim, --threads, --machine).", class_="note"))
    return section("Fusion plan", "fusion", tag("p", summary), *parts, folded("Kernels as a table", _table(network, numbers, tuned)))


def matches(network: Network, findings: Findings) -> dict[int, TaskFindings]:
    """What was found for each step (by position): tasks of the same program with the same constant and unaligned arguments."""
    known = {t.task.key: t for t in findings.tasks}
    targets = {(t.task.machine, t.task.fingerprint, t.task.threads) for t in findings.tasks}
    found: dict[int, TaskFindings] = {}
    texts: dict[int, str] = {}
    for n, step in enumerate(network.steps):
        kernel = step.call.kernel
        program = texts.setdefault(id(kernel), str(kernel))
        pairs = [(b.name, network.graph.storage(name)) for b, name in zip(kernel.args, step.call.arguments, strict=True)]
        constants = tuple(name for name, storage in pairs if storage in network.graph.constants)
        inputs = {network.graph.storage(v.buffer.name) for v in network.graph.inputs}
        unaligned = tuple(name for name, storage in pairs if storage in inputs)
        for machine, fingerprint, threads in targets:
            if (t := known.get(Task(program, machine, fingerprint, threads, constants, unaligned).key)) is not None:
                found[n] = t
                break
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _numbers(steps: Sequence[Step]) -> list[int]:
    """Equal kernels have equal numbers, counted from 1."""
    seen: dict[object, int] = {}
    return [seen.setdefault(s.call.kernel, len(seen) + 1) for s in steps]


def _drawing(network: Network, groups: Sequence[Sequence[int]], numbers: Sequence[int], tuned: Mapping[int, TaskFindings]) -> Markup:
    graph, edges = network.graph, dependences(network.graph)
    boxes = lay_out(groups, edges)
    places = {op: (b.x + 6, b.y + _HEAD + n * _ROW) for b, members in zip(boxes, groups, strict=True) for n, op in enumerate(members)}
    parts = [tag("path", d=_edge(places[a], places[b]), class_="edge") for a, b in edges]
    for n, (box, members) in enumerate(zip(boxes, groups, strict=True)):
        parts.append(_group(network, n, box, members, numbers[n], tuned.get(n)))
        parts += [_operator(graph, op, places[op]) for op in members]
    width = max((b.x + b.width for b in boxes), default=0.0) + 4 * _GAP
    height = max((b.y + b.height for b in boxes), default=0.0) + _GAP
    title = f"Fusion plan of {graph.name}: {len(groups)} kernels over {len(graph.operations)} operators"
    return tag(
        "svg", tag("title", title), *parts,
        viewBox=f"0 0 {number(width)} {number(height)}", width=width, height=height, role="img", aria_label=title,
    )  # fmt: skip


def _edge(a: tuple[float, float], b: tuple[float, float]) -> str:
    """From the bottom of one operator to the top of another; around the right of what lies between when it is far."""
    x0, y0, x1, y1 = a[0] + _WIDTH / 2, a[1] + _ROW - 2, b[0] + _WIDTH / 2, b[1]
    if y1 - y0 > 4 * _ROW and abs(x1 - x0) < _WIDTH:
        side = max(x0, x1) + _WIDTH / 2 + 50
        xs = (side, side)
    else:
        xs = (x0, x1)
    middle = max((y1 - y0) / 2, 4.0)
    return (
        f"M{number(x0)} {number(y0)}C{number(xs[0])} {number(y0 + middle)} {number(xs[1])} {number(y1 - middle)} {number(x1)} {number(y1)}"
    )


def _group(network: Network, n: int, box: Box, members: Sequence[int], kind: int, t: TaskFindings | None) -> Markup:
    step = network.steps[n]
    words = f"kernel {kind}, {step.call.kernel.name}: {' + '.join(step.operators)}"
    label = f"#{kind}"
    if t is not None and t.winner is not None and t.winner.seconds:
        label += f"  {seconds_text(t.winner.seconds)}" + (f", {t.gain:.2f}x" if t.gain else "")
        words += f"; {seconds_text(t.winner.seconds)}"
        if t.kept_default:
            words += ", as without tuning"
        elif t.gain:
            words += f", {t.gain:.2f} times faster than without tuning"
    return tag(
        "g", tag("title", words),
        tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=5.0, class_="group", style=f"--h:{hue(kind)}"),
        tag("text", label, x=box.x + 7, y=box.y + 13, class_="small"),
        data_operators=str(len(members)),
    )  # fmt: skip


def _operator(graph: Graph, op: int, place: tuple[float, float]) -> Markup:
    o = graph.operations[op]
    shapes = ", ".join("x".join(map(str, graph.buffers[name].static_shape)) or "scalar" for name in o.outputs if name in graph.buffers)
    return tag(
        "g", tag("title", f"{o.kind} {o.name}: {shapes}"),
        tag("rect", x=place[0], y=place[1], width=_WIDTH - 12, height=_ROW - 3, rx=3.0, class_="op"),
        tag("text", short(f"{o.kind} {shapes}", 24), x=place[0] + 5, y=place[1] + 12.5),
    )  # fmt: skip


def _table(network: Network, numbers: Sequence[int], tuned: Mapping[int, TaskFindings]) -> Markup:
    """One row for each distinct kernel."""
    rows = []
    summary = network.summary()
    for kind in dict.fromkeys(numbers):
        n, calls = numbers.index(kind), numbers.count(kind)
        row, t = summary[n], tuned.get(n)
        times = (None, None) if t is None else tuple(r.seconds if r is not None else None for r in (t.baseline, t.winner))
        name = row.operators if t is None else tag("a", row.operators, href=f"#{t.task.key}")
        rows.append((f"#{kind}", str(calls), name, str(row.flops), row.schedule, *map(duration, times)))
    columns = ("kernel", "calls", "operators", "operations", "schedule", "without tuning", "with tuning")
    return table("Kernels of the network", columns, rows, ("calls", "operations", "without tuning", "with tuning"))
