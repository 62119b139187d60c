"""The roofline: what kernels reach, without tuning and with it, against what was measured to be possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tilewright.ir.types import f32, f64
from tilewright.report.cells import section
from tilewright.report.findings import Findings, TaskFindings, Work
from tilewright.report.markup import Markup, join, tag
from tilewright.report.plot import Axis, Plot, legend
from tilewright.report.scale import log_scale
from tilewright.runtime.peak import Peak, measure_peak
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.records.record import host_name
from tilewright.util.quantities import count_text

#: The peak of (threads, element type).
Peaks = Mapping[tuple[int, str], Peak]
#: Element types whose peak can be measured. Others are computed in f32.
_TYPES = {"f32": f32, "f64": f64}


def host_peaks(findings: Findings) -> dict[tuple[int, str], Peak]:
    """The peaks that ``findings`` need, measured now (or taken from the build cache); none for records of other computers."""
    if {r.host for r in findings.records} != {host_name()}:
        return {}
    wanted = {key for key, *_ in _shown(findings)}
    return {(n, dtype): measure_peak(n, _TYPES[dtype]) for n, dtype in sorted(wanted) if n <= len(available_cpus())}


def roofline(findings: Findings, peaks: Peaks) -> Markup:
    """One chart for each number of threads and element type."""
    groups: dict[tuple[int, str], list[tuple[TaskFindings, Work]]] = {}
    for key, t, work in _shown(findings):
        groups.setdefault(key, []).append((t, work))
    if not groups:
        return Markup()
    charts = [_chart(key, tasks, peaks.get(key)) for key, tasks in groups.items()]
    shown = sum(map(len, groups.values()))
    notes = [
        "Operations over the bytes of all arguments, each moved once. Kernels whose data stay in the caches may lie above the slope, "
        "which is the bandwidth of main memory."
    ]
    if not all(key in peaks for key in groups):
        notes.append("The limits were not measured: the records come from another computer, or from more threads than this one has.")
    if shown < len(findings.tasks):
        notes.append(f"{len(findings.tasks) - shown} tasks compute nothing, have no fixed sizes, or never ran: they are not shown.")
    entries = [("ring default", "without tuning"), ("ring winner", "with tuning")]
    if any(key in peaks for key in groups):
        entries.append(("line roof", "measured limits of this computer"))
    return section("Roofline", "roofline", legend(entries), tag("div", *charts, class_="charts"), tag("p", " ".join(notes), class_="note"))


def _shown(findings: Findings) -> Iterator[tuple[tuple[int, str], TaskFindings, Work]]:
    """Tasks that ran and compute something, each with the peak that limits it."""
    for t in findings.tasks:
        if t.winner is not None and (work := t.work) is not None and work.flops:
            yield (t.task.threads, work.dtype if work.dtype in _TYPES else "f32"), t, work


def _chart(key: tuple[int, str], tasks: Sequence[tuple[TaskFindings, Work]], peak: Peak | None) -> Markup:
    threads, dtype = key
    rates = [w.flops / s for t, w in tasks for r in (t.winner, t.baseline) if r is not None and (s := r.seconds)]
    intensities = [w.intensity for _, w in tasks]
    if peak is not None:
        rates += [peak.flops, min(peak.flops, min(intensities) * peak.bandwidth)]
        intensities.append(peak.flops / peak.bandwidth)
    x, y = log_scale(intensities, 1.6), log_scale(rates, 1.6)
    title = f"Roofline on {threads} thread{'s' if threads > 1 else ''}, {dtype}"
    limit = f"Measured: {_rate(peak.flops)}, {peak.bandwidth / 1e9:.1f} GB/s." if peak is not None else "No measured limits."
    plot = Plot(title, limit, Axis("operations per byte", x, _plain), Axis("", y, _rate), width=560, height=340, left=92)
    if peak is not None:
        knee = peak.flops / peak.bandwidth
        slope = [(i, i * peak.bandwidth) for i in (x.low, min(knee, x.high))]
        plot.line([*slope, *([(x.high, peak.flops)] if knee < x.high else [])], "roof", limit)
    for t, work in tasks:
        _task(plot, t, work, peak)
    return tag("figure", plot.svg(), tag("figcaption", join(title, ". ", limit)))


def _task(plot: Plot, t: TaskFindings, work: Work, peak: Peak | None) -> None:
    """The task without tuning, with it, and a line between."""
    places = []
    for record, style, words in ((t.baseline, "default", "without tuning"), (t.winner, "winner", "with tuning")):
        if record is None or not record.seconds:
            continue
        rate = work.flops / record.seconds
        share = f", {rate / peak.flops:.0%} of the peak" if peak is not None else ""
        places.append(((work.intensity, rate), style, f"{t.label} {words}: {_rate(rate)}{share}"))
    if len(places) == 2:
        plot.line([p for p, *_ in places], "gain")
    for point, style, title in places:
        plot.ring(point, style, title)


def _rate(value: float) -> str:
    return f"{count_text(value).replace('.0 ', ' ')}FLOP/s"


def _plain(value: float) -> str:
    return f"{value:g}"
