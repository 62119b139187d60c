"""The page as a whole."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from os import PathLike
from pathlib import Path

from tilewright.graph.network import Network
from tilewright.report.cells import duration, ratio, section, short, table
from tilewright.report.conditions import conditions, notes
from tilewright.report.findings import Findings, TaskFindings, find
from tilewright.report.fusion import fusion_plan
from tilewright.report.markup import Content, Markup, join, tag
from tilewright.report.roofline import Peaks, host_peaks, roofline
from tilewright.report.split import time_split
from tilewright.report.style import CSS
from tilewright.report.trials import decisions, task_part
from tilewright.runtime.records import RecordStore
from tilewright.util.errors import RuntimeFailure

#: Nothing is loaded from anywhere and no script runs, whatever the records contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
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
    _replace(Path(path), text)
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
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    body = tag("body", tag("header", tag("h1", title), tag("p", _summary(findings)), _contents(parts)), tag("main", *parts))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


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
    return f"{trials} trials of {len(findings.tasks)} tasks by {authors}" + (f"; session {sessions}." if sessions else ".")


def _contents(parts: list[Markup]) -> Markup:
    names = {"winners": "Winners", "split": "Time of one run", "roofline": "Roofline", "fusion": "Fusion plan", "tasks": "Tasks"}
    names |= {"notes": "Notes", "conditions": "Conditions"}
    made = join(*parts)
    return tag("nav", *(tag("a", words, href=f"#{name}") for name, words in names.items() if f' id="{name}"' in made))


def _replace(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, all of it or nothing."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise RuntimeFailure(f"cannot write the report {path}: {error.strerror}", hint="name a file in a directory that exists") from error
