"""Where, when and how the figures came about, and what did not go well."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tilewright.report.cells import section, table
from tilewright.report.findings import Findings
from tilewright.report.markup import Content, Markup, join, tag
from tilewright.runtime.measurement import processor_name
from tilewright.runtime.records import Session
from tilewright.runtime.records.record import host_name, now


def conditions(findings: Findings) -> Markup:
    """Hosts, versions, threads, dates; sessions with their budgets and the conditions of each sitting."""
    records = findings.records
    hosts = Counter(r.host for r in records)
    versions = Counter(", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in records)
    dates = sorted(r.date for r in records)
    rows: list[tuple[Content, Content]] = [
        ("computers", _counted(hosts)),
        ("machines", ", ".join(dict.fromkeys(t.task.machine for t in findings.tasks))),
        ("threads", ", ".join(map(str, sorted({t.task.threads for t in findings.tasks})))),
        ("versions", _counted(versions)),
        ("first and last record", f"{dates[0][:19]} to {dates[-1][:19]} UTC"),
        ("this page", f"written {now()[:19]} UTC on {host_name()}, load {os.getloadavg()[0]:.2f}"),
    ]
    if set(hosts) == {host_name()}:
        rows.insert(1, ("processor", processor_name()))
    parts = [table("Conditions", ("what", "value"), rows)]
    if findings.sessions:
        columns = ("session", "subject", "state", "author", "seed", "budget", "begun", "last change", "computer", "options")
        parts.append(table("Sessions", columns, map(_session, findings.sessions), ("seed",)))
        if sittings := [_sitting(s, x) for s in findings.sessions for x in s.sittings]:
            begun = ("session", "begun", "computer", "processor", "processors", "threads", "load before", "system", "versions")
            parts.append(table("Sittings", begun, sittings, begun[4:7]))
    return section("Conditions", "conditions", *parts)


def notes(findings: Findings) -> Markup:
    """What a reader has to know to judge the figures; verdicts of everything that was tried."""
    verdicts = sum((t.verdicts for t in findings.tasks), Counter[str]())
    said: list[Content] = [
        "Time is the fastest sample of a call: other programs on the computer only ever add time.",
        "Winners are decided by a final comparison, in turns with the schedule without tuning, where the table says so; "
        "otherwise the time is that of a single trial, and the fastest of many single trials was also the luckiest.",
    ]
    searched = [t for t in findings.tasks if t.trials]
    if single := sum(t.winner is not None and t.winner.role != "final" and not t.kept_default for t in searched):
        said.append(f"{single} of {len(findings.tasks)} winners were decided without a final comparison.")
    if doubtful := [t.label for t in searched if t.doubtful]:
        said.append(f"Faster in less than three of four rounds, so within the noise: {', '.join(doubtful)}.")
    if kept := sum(t.kept_default for t in searched):
        said.append(f"For {kept} of {len(searched)} tasks with trials nothing faster than the schedule without tuning was found.")
    if idle := len(findings.tasks) - len(searched):
        said.append(f"{idle} tasks got no trials here: the schedule without tuning was measured, or a known winner compared again.")
    if nothing := [t.label for t in findings.tasks if t.winner is None]:
        said.append(f"Nothing worked for: {', '.join(nothing)}.")
    if findings.untried:
        said.append(f"{len(findings.untried)} kernels were never tried: {', '.join(t.name for t in findings.untried)}.")
    if open_ := [s.id for s in findings.sessions if s.state == "running"]:
        said.append(f"Still running, or killed: {', '.join(open_)}.")
    if findings.elsewhere:
        said.append(
            f"Other sessions made {findings.elsewhere} trials of these tasks: what is known is not repeated. "
            "`tilewright report --all` shows them."
        )
    if elsewhere := sum(t.discovery is None and t.winner is not None and not t.kept_default for t in findings.tasks):
        said.append(f"{elsewhere} winners were found by sessions that are not shown: known trials are not repeated.")
    rows = [(status, str(n)) for status, n in verdicts.most_common()]
    total = ("all", str(verdicts.total()))
    return section(
        "Notes", "notes", tag("ul", *(tag("li", s) for s in said)),
        table("Trials and baselines by verdict", ("verdict", "count"), [*rows, total], ("count",)),
    )  # fmt: skip


def _sitting(session: Session, x: Mapping[str, Any]) -> tuple[Content, ...]:
    """A row for what :func:`tilewright.runtime.records.session.sitting` noted; records of others need not have all of it."""
    load = x.get("load")
    versions = x.get("versions") or {}
    return (
        session.id, str(x.get("date", ""))[:19], str(x.get("host", "")), str(x.get("processor", "")), str(x.get("processors", "")),
        str(x.get("threads", "")), f"{load:.2f}" if isinstance(load, (int, float)) else str(load or ""), str(x.get("system", "")),
        ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, Mapping) else str(versions),
    )  # fmt: skip


def _counted(found: Counter[str]) -> str:
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{name} ({n} records)" for name, n in found.most_common())


def _session(s: Session) -> tuple[Content, ...]:
    limits = [f"{s.trials} trials" if s.trials is not None else "", f"{s.seconds:g} s" if s.seconds is not None else ""]
    options = ", ".join(f"{k}={v}" for k, v in s.options.items())
    return (
        s.id, s.subject, s.state, s.author, str(s.seed), " and ".join(x for x in limits if x) or "no limit",
        s.created[:19], s.updated[:19], s.host, join(options),
    )  # fmt: skip
