"""``tilewright records``: what tuning measured."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tilewright.cli.console import seconds_text, stdout, table
from tilewright.cli.options import RecordsFile
from tilewright.runtime.memory import NUMPY_OFFSET
from tilewright.runtime.records import Record, RecordStore, Session, Task, records_path
from tilewright.runtime.records.winner import best_of
from tilewright.util.errors import RuntimeFailure

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")

Limit = Annotated[int, typer.Option(min=1, help="Rows to show at most.")]
#: Characters of a key that are shown, and as a rule enough to name it.
_SHORT = 10


@app.callback()
def records() -> None:
    """Show, export, import and delete what tuning measured.

    Every trial of `tilewright tune` is kept in one SQLite file: ~/.local/share/tilewright/records.db,
    or the one TILEWRIGHT_RECORDS or --records names. Several processes may use it at once. Tasks, sessions and
    records are named by the first characters of their keys.

    [bold]Examples[/]

      tilewright records list

      tilewright records list --sessions

      tilewright records show 20261121-0830

      tilewright records best 4fa1c0 --json > trace.json

      tilewright records export -o mine.jsonl && tilewright records import theirs.jsonl

      tilewright records delete 20261121-0830 --yes
    """


@app.command("list")
def list_command(
    file: RecordsFile = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="List tuning sessions instead of tasks.")] = False,
    limit: Limit = 50,
) -> None:
    """Tasks with their fastest time, or sessions, the latest first."""
    with _store(file) as store:
        console = stdout()
        if sessions:
            _print_sessions(console, store, limit)
        else:
            _print_tasks(console, store, limit)


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="First characters of a task's, session's or record's key.")],
    file: RecordsFile = None,
    limit: Limit = 20,
) -> None:
    """A task with its fastest records, a session with its tasks, or a record with its schedule."""
    with _store(file) as store:
        found = _named(store, key)
        console = stdout()
        match found:
            case Task():
                _print_task(console, store, found, limit)
            case Session():
                _print_session(console, store, found)
            case Record():
                _print_record(console, found)


@app.command()
def best(
    key: Annotated[str, typer.Argument(help="First characters of a task's key; all tasks without it.", show_default=False)] = "",
    file: RecordsFile = None,
    json: Annotated[bool, typer.Option("--json", help="Only the schedule's trace, as JSON that `replay` takes.")] = False,
) -> None:
    """The confirmed winner of a task with its schedule (the fastest trial, if no comparison was made), or of every task."""
    with _store(file) as store:
        if not key:
            if json:
                raise typer.BadParameter("names one task", param_hint="--json")
            _print_tasks(stdout(), store, None)
            return
        task = store.task(key)
        record = store.best(task)
        if record is None:
            raise RuntimeFailure(f"nothing ran for {task}", hint=f"`tilewright records show {key}` lists what was tried")
        if not record.winner:
            typer.echo("not confirmed by a final comparison: the fastest of many trials was also the luckiest", err=True)
        if json:
            typer.echo(record.trace)
        else:
            _print_record(stdout(), record)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (default: stdout).", show_default=False)] = None,
    file: RecordsFile = None,
    task: Annotated[str, typer.Option(help="Only records of this task.", show_default=False)] = "",
    session: Annotated[str, typer.Option(help="Only records of this session.", show_default=False)] = "",
    salvage: Annotated[bool, typer.Option("--salvage", help="Write what is readable of a damaged file.")] = False,
) -> None:
    """Write records as JSON lines."""
    from tilewright.runtime.records.exchange import export_lines
    from tilewright.runtime.records.salvage import salvage_lines

    if salvage:
        if task or session:
            raise typer.BadParameter("takes everything that is readable: export a part of what it gives", param_hint="--salvage")
        count = _write(salvage_lines(file or records_path()), output)
    else:
        with _store(file) as store:
            chosen = store.task(task) if task else None
            count = _write(export_lines(store, chosen, store.session(session).id if session else None), output)
    typer.echo(f"{count} records written", err=True)


@app.command("import")
def import_command(
    lines: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="What `export` wrote; - is stdin.")],
    file: RecordsFile = None,
) -> None:
    """Add records from JSON lines; those that are there already stay as they are."""
    from tilewright.runtime.records.exchange import import_lines

    with RecordStore(file or records_path()) as store:
        try:
            if str(lines) == "-":
                report = import_lines(store, sys.stdin.buffer)
            else:
                with open(lines, "rb") as source:
                    report = import_lines(store, source)
        except OSError as error:
            raise RuntimeFailure(f"cannot read {lines}: {error.strerror}") from error
    for refused in report.refused:
        typer.echo(f"{lines}:{refused.line}: {refused.reason}", err=True)
    typer.echo(f"{report.added} records added to {store.path}, {report.known} were there already")
    if report.refused:
        raise RuntimeFailure(f"{len(report.refused)} lines of {lines} were not understood", hint="the others were imported")


@app.command()
def delete(
    session: Annotated[str, typer.Argument(help="First characters of the session's key.")],
    file: RecordsFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a session with its records: one that was measured while the machine was busy, say.

    It asks first. A session that a process is working on stays.
    """
    from tilewright.tune import claim

    with _store(file) as store:
        found = store.session(session)
        records = store.count(session=found.id)
    if not yes:
        typer.confirm(f"remove session {found.id} ({found.subject}) and its {records} records from {store.path}?", abort=True)
    with RecordStore(file or records_path()) as store:
        gone = claim.delete(store, found)
    typer.echo(f"session {found.id} ({found.subject}) and its {gone} records removed from {store.path}")


def _store(file: Path | None) -> RecordStore:
    return RecordStore(file or records_path(), readonly=True)


def _named(store: RecordStore, key: str) -> Task | Session | Record:
    """What begins with ``key``: exactly one session, task or record."""
    sessions = [s for s in store.sessions() if s.id.startswith(key)]
    tasks = [s.task for s in store.tasks() if s.task.key.startswith(key)]
    found: list[Task | Session | Record] = [*sessions, *tasks] or [*store.matching(key)]
    if len(found) != 1:
        raise RuntimeFailure(
            f"{len(found) or 'no'} tasks, sessions or records in {store.path} begin with {key!r}",
            hint="`tilewright records list`, with or without --sessions, shows them",
        )
    return found[0]


def _write(lines: Iterable[str], output: Path | None) -> int:
    """Write ``lines``; returns how many of them are records."""
    count = 0
    try:
        with open(output, "w", encoding="utf-8") if output else nullcontext(sys.stdout) as target:
            for line in lines:
                count += '"kind":"record"' in line
                target.write(line + "\n")
    except OSError as error:
        raise RuntimeFailure(f"cannot write {output or 'the records'}: {error.strerror}", hint="name another file") from error
    return count


def _print_tasks(console: Console, store: RecordStore, limit: int | None) -> None:
    every = store.tasks()
    out = table("task", "kernel", "machine", "threads", "records", "failed", "baseline", "best", "gain", numbers=_FIGURES)
    for s in every[:limit]:
        base = _baseline(store.records(s.task, role="baseline"))
        failed = str(s.records - s.timed) if s.records > s.timed else ""
        best = store.best(s.task)
        out.add_row(
            s.task.key[:_SHORT], escape(_signature(s.task)), s.task.machine, str(s.task.threads), str(s.records), failed,
            _time(base), _time(s.seconds), _gain(base, best),
        )  # fmt: skip
    console.print(out)
    if limit is not None and len(every) > limit:
        console.print(f"{len(every) - limit} more: --limit {len(every)}", highlight=False)


_FIGURES = ("threads", "records", "failed", "baseline", "best", "gain")


def _print_sessions(console: Console, store: RecordStore, limit: int) -> None:
    out = table("session", "subject", "state", "author", "tasks", "trials", "of", "host", numbers=("tasks", "trials", "of"))
    for s in store.sessions()[:limit]:
        trials = store.count(session=s.id, role="trial")
        out.add_row(s.id, escape(s.subject), s.state, s.author, str(len(s.tasks)), str(trials), _budget(s), s.host)
    console.print(out)


def _print_task(console: Console, store: RecordStore, task: Task, limit: int) -> None:
    every = store.records(task)
    verdicts = ", ".join(f"{n} {status}" for status, n in Counter(r.status for r in every).most_common())
    console.print(f"{task}, key {task.key}\n{verdicts or 'no records'}", highlight=False)
    if task.constants:
        console.print(f"constants: {', '.join(task.constants)}", highlight=False)
    if task.unaligned:
        console.print(f"arrays that begin {NUMPY_OFFSET} bytes past a cache line: {', '.join(task.unaligned)}", highlight=False)
    console.print(task.program, markup=False, highlight=False)
    out = table("record", "role", "verdict", "time", "estimate", "author", "session", "date", "message", numbers=("time", "estimate"))
    for r in sorted(every, key=lambda r: r.seconds or float("inf"))[:limit]:
        first = r.message.partition("\n")[0]
        out.add_row(
            r.uid[:_SHORT], r.role, r.status, _time(r.seconds), _time(r.estimate), r.author, r.session, r.date[:16], escape(first[:60])
        )  # fmt: skip
    console.print(out)


def _print_session(console: Console, store: RecordStore, session: Session) -> None:
    s = session
    console.print(f"session {s.id}: {escape(s.subject)}, {s.state}, by {s.author}, seed {s.seed}, on {s.host}", highlight=False)
    console.print(f"begun {s.created[:16]}, last change {s.updated[:16]}, budget {_budget(s)}", highlight=False)
    for x in s.sittings:
        versions = ", ".join(f"{name} {version}" for name, version in x.get("versions", {}).items())
        console.print(
            f"sitting of {str(x.get('date'))[:16]} on {x.get('host')}: {x.get('processor')}, {x.get('processors')} processors, "
            f"{x.get('threads')} threads, load average {x.get('load')} before, {versions}",
            markup=False,
            highlight=False,
        )
    out = table("task", "kernel", "weight", "trials", "failed", "baseline", "best", "gain", numbers=("weight", "trials", *_FIGURES[2:]))
    for key, weight in s.tasks.items():
        mine = store.records(key, session=s.id)
        timed = [r for r in mine if r.seconds]
        trials, failed = sum(r.role == "trial" for r in mine), len(mine) - len(timed)
        base = _baseline(mine)
        best = best_of(mine)
        out.add_row(
            key[:_SHORT], escape(_signature(store.task(key))), f"{weight:g}", str(trials), str(failed),
            _time(base), _time(best.seconds if best else None), _gain(base, best),
        )  # fmt: skip
    console.print(out)


def _print_record(console: Console, record: Record) -> None:
    r = record
    versions = ", ".join(f"{name} {version}" for name, version in r.versions.items())
    console.print(f"{r.task}\n{r.role} {r.uid[:_SHORT]} by {r.author or 'nobody'}: {r.status} {_time(r.seconds)}", highlight=False)
    console.print(f"{r.date[:16]} on {r.host}, {versions}, session {r.session or 'none'}", highlight=False)
    if r.winner:
        gain = f", {r.gain:.2f} times as fast as without tuning" if r.gain is not None else ""
        console.print(f"confirmed winner of a comparison in turns{gain}", highlight=False)
    if r.samples:
        console.print("samples: " + ", ".join(map(seconds_text, sorted(r.samples))), highlight=False)
    if r.estimate is not None:
        console.print(f"estimate: {seconds_text(r.estimate)}", highlight=False)
    if r.point:
        console.print("point: " + ", ".join(f"{k}={v}" for k, v in r.point.items()), markup=False, highlight=False)
    if r.message:
        console.print(r.message, markup=False, highlight=False)
    if r.trace:
        from tilewright.schedule.trace import Trace

        console.print(str(Trace.from_json(r.trace)), markup=False, highlight=False)


def _signature(task: Task) -> str:
    """``gemm(a: f32[64, 32], ...)``, as long as a column may be."""
    line = next((line.strip() for line in task.program.splitlines() if line.lstrip().startswith("def ")), "")
    text = line.removeprefix("def ").removesuffix(":")
    return text if len(text) <= 60 else text[:57] + "..."


def _baseline(records: Iterable[Record]) -> float | None:
    return min((r.seconds for r in records if r.role == "baseline" and r.seconds), default=None)


def _budget(session: Session) -> str:
    parts = [f"{session.trials} trials" if session.trials is not None else "", f"{session.seconds:g} s" if session.seconds else ""]
    return " and ".join(p for p in parts if p) or "no limit"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else seconds_text(seconds)


def _gain(baseline: float | None, best: Record | None) -> str:
    """As it was confirmed; with a question mark where it was not."""
    if best is None or not best.seconds:
        return ""
    if best.gain is not None:
        return f"{best.gain:.2f}x"
    return f"{baseline / best.seconds:.2f}x?" if baseline else ""
