"""The page as a whole."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from tilewright.graph.network import Network
from tilewright.report.cells import duration, ratio, section, short, table
from tilewright.report.conditions import conditions, notes
from tilewright.report.document import document, replace
from tilewright.report.findings import Findings, TaskFindings, find
from tilewright.report.fusion import fusion_plan
from tilewright.report.markup import Content, Markup, tag
from tilewright.report.roofline import Peaks, host_peaks, roofline
from tilewright.report.split import time_split
from tilewright.report.trials import decisions, task_part
from tilewright.runtime.records import RecordStore

#: Parts of the page and their names in its table of contents.
_NAMES = {"winners": "Winners", "split": "Time of one run", "roofline": "Roofline", "fusion": "Fusion plan", "tasks": "Tasks"}
_NAMES |= {"notes": "Notes", "conditions": "Conditions"}
#: Colours for authors; after that they repeat.
_COLOURS = 6
#: Tasks whose parts are unfolded: with more the page would be long.
_OPENED = 1


def write(
    store: RecordStore,
    path: str | PathLike[str],
    session: str | None = None,
    network: Network | None = None,
    *,
    everything: bool = False,
    peaks: Peaks | None = None,
) -> Findings:
    """Write what ``store`` says of a session to ``path`` as one HTML file, and return its figures.

    ``session`` is the beginning of a session's id (default: the latest with records); ``everything``
    takes all records instead, so that sessions of different authors appear in one chart. The fusion
    plan of ``network`` is drawn if it is given: compiled, or only prepared. ``peaks`` are the limits of
    the roofline by (threads, element type); by default those of this computer, measured if the
    records were made on it. RuntimeFailure when there is nothing to show or ``path`` cannot be written;
    a file that was there stays as it was then.
    """
    findings = find(store, session, everything=everything)
    text = page(findings, network, host_peaks(findings) if peaks is None else peaks)
    replace(Path(path), text)
    return findings


def page(findings: Findings, network: Network | None = None, peaks: Peaks | None = None) -> str:
    """The HTML document. Without ``peaks`` the roofline has no roof."""
    styles = {author: f"c{n % _COLOURS}" for n, author in enumerate(findings.authors)}
    title = f"Tuning report: {findings.subject}"
    parts = [
        winners(findings),
        time_split(findings),
        roofline(findings, peaks or {}),
        *([fusion_plan(network, findings)] if network is not None else []),
        section("Tasks", "tasks", *(task_part(t, styles, opened=n < _OPENED) for n, t in enumerate(findings.tasks))),
        notes(findings),
        conditions(findings),
    ]
    return document(title, _summary(findings), parts, _NAMES)


def winners(findings: Findings) -> Markup:
    """One row for each task: time without tuning, with it, and by what decisions."""
    columns = ("task", "calls", "trials", "failed", "without tuning", "with tuning", "gain", "final comparison", "found by", "decisions")
    rows = [_winner_row(t) for t in findings.tasks]
    return section("Winners", "winners", table("The fastest schedule of each task", columns, rows, columns[1:7]))


def _winner_row(t: TaskFindings) -> tuple[Content, ...]:
    failed = sum(r.status != "ok" for r in t.trials)
    name = tag("a", t.label, href=f"#{t.task.key}", title=short(t.signature, 300))
    start = (name, f"{t.weight:g}", str(len(t.trials)), str(failed), duration(t.baseline.seconds if t.baseline else None))
    if t.winner is None:
        return (*start, None, None, None, "nothing worked", None)
    found = "another session"
    if t.discovery is not None:
        found = f"trial {t.discovery[0]}, {t.discovery[1].author or 'nobody'}"
    elif t.kept_default:
        found = "no tuning"
    confirmed = "none"
    if t.rounds is not None:
        confirmed = "" if t.kept_default else f"faster in {t.rounds[0]} of {t.rounds[1]} rounds"
    return (*start, duration(t.winner.seconds), ratio(t.gain), confirmed, found, short(decisions(t.winner), 200))


def _summary(findings: Findings) -> str:
    trials = sum(len(t.trials) for t in findings.tasks)
    authors = ", ".join(findings.authors) or "nobody"
    sessions = ", ".join(s.id for s in findings.sessions[:3]) + (", ..." if len(findings.sessions) > 3 else "")
    more = f" {findings.elsewhere} trials of these tasks by other sessions are not shown." if findings.elsewhere else ""
    return f"{trials} trials of {len(findings.tasks)} tasks by {authors}" + (f"; session {sessions}." if sessions else ".") + more
