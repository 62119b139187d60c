"""Where a network's time goes, before and after tuning."""

from __future__ import annotations

from tilewright.report.cells import duration, folded, ratio, section, short, table
from tilewright.report.findings import Findings, TaskFindings
from tilewright.report.markup import Markup, number, tag
from tilewright.util.quantities import seconds_text

#: Tasks with a segment of their own; the rest share one.
SEGMENTS = 12
_WIDTH, _BAR, _LABEL = 900.0, 34.0, 130.0


def time_split(findings: Findings) -> Markup:
    """Two bars, and a table; nothing for a single task."""
    known = [t for t in findings.tasks if t.baseline is not None and t.winner is not None]
    if not findings.weighted or len(known) < 2:
        return Markup()
    before, after = sum(map(_before, known)), sum(map(_after, known))
    title = f"Time of one run: {seconds_text(before)} without tuning, {seconds_text(after)} with it, {before / after:.2f}x"
    rows = [
        (
            tag("a", t.label, href=f"#{t.task.key}"), f"{t.weight:g}", duration(_before(t)), f"{_before(t) / before:.1%}",
            duration(_after(t)), f"{_after(t) / after:.1%}", ratio(t.gain),
        )
        for t in known
    ]  # fmt: skip
    total = (tag("b", "all"), "", duration(before), "100%", duration(after), "100%", ratio(before / after))
    columns = ("kernel", "calls", "without tuning", "share", "with tuning", "share after", "gain")
    note = "Kernel times summed over all calls of one run; what lies between kernels is not in it."
    if missing := len(findings.tasks) + len(findings.untried) - len(known):
        note += f" {missing} kernels were not measured and are missing on both sides."
    return section(
        "Time of one run", "split", tag("p", title), _bars(known, max(before, after), title),
        folded("The same as a table", table("Time of one run by kernel", columns, [*rows, total], columns[1:])),
        tag("p", note, class_="note"),
    )  # fmt: skip


def _before(t: TaskFindings) -> float:
    """Seconds of all calls without tuning."""
    return t.weight * ((t.baseline.seconds if t.baseline else None) or 0.0)


def _after(t: TaskFindings) -> float:
    """Seconds of all calls with the winner."""
    return t.weight * ((t.winner.seconds if t.winner else None) or 0.0)


def _bars(tasks: list[TaskFindings], most: float, title: str) -> Markup:
    """Segments keep their order and colour in both bars, so that they can be compared."""
    parts: list[Markup] = []
    for row, (label, cost) in enumerate((("without tuning", _before), ("with tuning", _after))):
        y = row * (_BAR + 12.0)
        parts.append(tag("text", label, x=_LABEL - 8, y=y + _BAR / 2 + 4, text_anchor="end"))
        x = _LABEL
        segments = [(f"{t.label}, {t.weight:g} calls", cost(t)) for t in tasks[:SEGMENTS]]
        if rest := tasks[SEGMENTS:]:
            segments.append((f"{len(rest)} other kernels", sum(map(cost, rest))))
        for n, (name, seconds) in enumerate(segments):
            width = seconds / most * (_WIDTH - _LABEL - 90.0)
            words = f"{name}: {seconds_text(seconds)} {label}"
            parts.append(tag("rect", tag("title", words), x=x, y=y, width=width, height=_BAR, class_="segment", style=f"--h:{hue(n)}"))
            if width > 60:
                parts.append(tag("text", short(name.split(" ")[0], int(width / 7)), x=x + 5, y=y + _BAR / 2 + 4, class_="inside"))
            x += width
        parts.append(tag("text", seconds_text(sum(map(cost, tasks))), x=x + 6, y=y + _BAR / 2 + 4))
    box = f"0 0 {number(_WIDTH)} {number(2 * _BAR + 12.0)}"
    return tag("svg", tag("title", title), *parts, viewBox=box, role="img", aria_label=title, class_="bars")


def hue(n: int) -> int:
    """Colour of the n-th thing, far from those of its neighbours."""
    return int(n * 137.508 + 210) % 360
