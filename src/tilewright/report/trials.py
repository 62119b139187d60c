"""One task: how its search went, and what it found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.report.cells import duration, folded, short, table
from tilewright.report.findings import Run, TaskFindings
from tilewright.report.markup import Content, Markup, join, tag
from tilewright.report.plot import Axis, Plot, Point, legend
from tilewright.report.scale import Linear, log_scale
from tilewright.runtime.records import Record
from tilewright.schedule.trace import Trace
from tilewright.util.errors import ScheduleError
from tilewright.util.quantities import seconds_text

#: Dots of one chart. More hide each other, and the page stays small.
DOTS = 6000
#: Different messages of failed trials that are shown.
MESSAGES = 12

#: The style class of each author.
Styles = Mapping[str, str]


def task_part(t: TaskFindings, styles: Styles, *, opened: bool) -> Markup:
    """Charts, decisions, trace and failures of one task, folded behind a line that sums it up."""
    trials = f"{len(t.trials)} trials" + (f", {failed} failed" if (failed := sum(r.status != "ok" for r in t.trials)) else "")
    result = f", {seconds_text(t.winner.seconds)}" if t.winner is not None and t.winner.seconds else ", nothing worked"
    gain = f", {t.gain:.2f}x" if t.gain else ""
    parts: list[Content] = [tag("pre", t.signature)]
    if charts := [c for c in (progress_chart(t, styles), estimate_chart(t, styles)) if c is not None]:
        parts += [_legend(t, styles), tag("div", *charts, class_="charts")]
    parts += [_improvements(t), _winner(t), _failures(t), folded("Program", tag("pre", t.task.program))]
    return tag("div", folded(f"{t.label}: {trials}{result}{gain}", *parts, opened=opened), id=t.task.key, class_="task")


def progress_chart(t: TaskFindings, styles: Styles) -> Markup | None:
    """Every trial, and the best so far of each session; None when there are no trials, or nothing was timed."""
    times = [r.seconds for r in t.records if r.seconds is not None]
    if not times or not t.trials:
        return None
    last = max(2.0, *(float(len(run.trials)) for run in t.runs), 0.0)
    y = log_scale(times)
    plot = Plot(
        f"Best so far: {t.task.name}", f"{len(t.trials)} trials, fastest {seconds_text(min(times))}.",
        Axis("trial", Linear(0.0, last), _plain), Axis("time of a call", y, _time),
    )  # fmt: skip
    for run in t.runs:
        timed = [(float(n), r.seconds) for n, r in enumerate(run.trials, 1) if r.seconds is not None]
        plot.dots(_thinned(timed, len(t.runs)), styles[run.author or "nobody"], f"trials by {_who(run)}")
        failed = [(float(n), y.low) for n, r in enumerate(run.trials, 1) if r.seconds is None]
        plot.dots(_thinned(failed, len(t.runs)), "fail", f"{len(failed)} failed trials by {_who(run)}")
    for run in t.runs:
        found: list[Point] = [(float(n), r.seconds) for n, r in run.improvements if r.seconds is not None]
        if found:
            plot.steps([*found, (float(len(run.trials)), found[-1][1])], styles[run.author or "nobody"], f"best so far, {_who(run)}")
    if t.baseline is not None and t.baseline.seconds:
        plot.line([(0.0, t.baseline.seconds), (last, t.baseline.seconds)], "default", f"without tuning: {_time(t.baseline.seconds)}")
    if t.discovery is not None and t.winner is not None and t.winner.seconds:
        n, r = t.discovery
        plot.ring((float(n), t.winner.seconds), "winner", f"winner: {seconds_text(t.winner.seconds)}, found by trial {n} ({r.author})")
    return tag("figure", plot.svg(), tag("figcaption", "Time of each trial, and the best so far"))


def estimate_chart(t: TaskFindings, styles: Styles) -> Markup | None:
    """Estimated against measured time; None when there are too few to say anything."""
    pairs = [(r.estimate, r.seconds, r) for r in t.records if r.role != "final" and r.estimate and r.estimate > 0 and r.seconds]
    if len(pairs) < 3:
        return None
    estimates, times = [e for e, _, _ in pairs], [s for _, s, _ in pairs]
    agreement = rank_correlation(estimates, times)
    words = f"Rank correlation {agreement:.2f} over {len(pairs)} trials." if agreement is not None else f"{len(pairs)} trials."
    x, y = log_scale(estimates), log_scale(times)
    plot = Plot(f"Estimated and measured time: {t.task.name}", words, Axis("estimated", x, _time), Axis("measured", y, _time))
    low, high = max(x.low, y.low), min(x.high, y.high)
    if low < high:
        plot.line([(low, low), (high, high)], "diagonal", "as estimated")
    for author, style in styles.items():
        mine = [(e, s) for e, s, r in pairs if (r.author or "nobody") == author and r.role == "trial"]
        plot.dots(_thinned(mine, len(styles)), style, f"trials by {author}")
    for e, s, r in pairs:
        if r.role == "baseline":
            plot.ring((e, s), "default", f"without tuning: estimated {_time(e)}, measured {_time(s)}")
    if t.discovery is not None and (r := t.discovery[1]).estimate and r.seconds:
        plot.ring((r.estimate, r.seconds), "winner", f"winner: estimated {_time(r.estimate)}, measured {_time(r.seconds)}")
    return tag("figure", plot.svg(), tag("figcaption", f"Estimated against measured time. {words}"))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: 1 when ``a`` orders as ``b`` does, 0 when they have nothing to do with each other; None when one is constant."""
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
        if len(counts) == 1:
            return None
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])  # equal values share the mean of their ranks
    return float(np.asarray(np.corrcoef(ranks[0], ranks[1]))[0, 1])


def trace_text(record: Record) -> str:
    """The steps of a record's schedule, one a line; as it was written down when this version does not understand it."""
    try:
        return str(Trace.from_json(record.trace)) or "no steps: the program as written"
    except ScheduleError:
        return record.trace


def decisions(record: Record) -> str:
    """The point of a record as ``knob=value`` text, in the order it was written down."""
    return ", ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in _flat(record.point or {}))


def _flat(point: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for k, v in point.items():
        if isinstance(v, Mapping):
            yield from _flat(v)
        else:
            yield k, v


def _legend(t: TaskFindings, styles: Styles) -> Markup:
    authors = dict.fromkeys(run.author or "nobody" for run in t.runs)
    entries = [(f"line {styles[a]}", a) for a in authors] + [("line default", "without tuning")]
    if t.discovery is not None:
        entries.append(("ring winner", "winner"))
    if any(r.status != "ok" for r in t.trials):
        entries.append(("dots fail", "failed"))
    return legend(entries)


def _improvements(t: TaskFindings) -> Markup | None:
    rows = []
    for run in t.runs:
        better = run.improvements
        for (n, r), before in zip(better, [None, *(r for _, r in better)], strict=False):
            step = f"{before.seconds / r.seconds:.2f}x" if before is not None and before.seconds and r.seconds else ""
            rows.append((run.author, run.session, str(n), duration(r.seconds), step, duration(r.estimate), short(decisions(r), 160)))
    if not rows:
        return None
    columns = ("author", "session", "trial", "time", "step", "estimate", "decisions")
    return folded(f"The {len(rows)} trials that improved on all before", table("Improvements", columns, rows, columns[2:6]))


def _winner(t: TaskFindings) -> Markup | None:
    if t.winner is None:
        return None
    samples = join(*(join(", " if n else "", duration(s)) for n, s in enumerate(sorted(t.winner.samples))))
    return folded(
        "The winner's decisions, samples and schedule" if not t.kept_default else "The schedule (the one without tuning was kept)",
        tag("p", tag("b", "Decisions: "), decisions(t.winner) or "none recorded"),
        tag("p", tag("b", "Samples: "), samples),
        tag("pre", trace_text(t.winner) if t.winner.trace else "no trace was recorded"),
    )


def _failures(t: TaskFindings) -> Markup | None:
    found = t.failures
    if not found:
        return None
    rows = [(status, str(n), short(message, 300)) for status, message, n in found[:MESSAGES]]
    more = f"{len(found) - MESSAGES} other messages are not shown." if len(found) > MESSAGES else None
    return folded(
        f"The {sum(n for *_, n in found)} that failed", table("Failed trials", ("verdict", "count", "message"), rows, ("count",)),
        tag("p", more, class_="note") if more else None,
    )  # fmt: skip


def _thinned(points: Sequence[Point], shares: int) -> list[Point]:
    """At most a chart's share of ``points``: the fastest, and every n-th of the others."""
    room = DOTS // max(shares, 1)
    if len(points) <= room:
        return list(points)
    keep = set(sorted(range(len(points)), key=lambda i: points[i][1])[: room // 4])
    every = -(-len(points) // (room - room // 4))
    return [p for i, p in enumerate(points) if i in keep or i % every == 0]


def _who(run: Run) -> str:
    return f"{run.author or 'nobody'}, seed {run.seed}, session {run.session or 'none'}"


def _time(seconds: float) -> str:
    return re.sub(r"\.?0+ ", " ", seconds_text(seconds)) if "." in seconds_text(seconds) else seconds_text(seconds)


def _plain(value: float) -> str:
    return f"{value:g}"
