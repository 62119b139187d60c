"""Tables of benchmarks: on the terminal, as Markdown inside a document, and as JSON with raw samples."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from tilewright.hw import Machine
from tilewright.runtime.measurement import Measurement, processor_name
from tilewright.runtime.pool import available_cpus

#: Columns a table needs: it is not cut where the terminal is narrower.
WIDTH = 170
#: Load for each processor above which figures, above all of several threads, are not to be trusted.
BUSY = 0.25
#: Interquartile range of a contender's rounds, relative to its median, above which a row is said to be noisy.
NOISY = 0.1
PACKAGES = ("tilewright", "numpy", "torch", "onnxruntime", "openvino", "llvmlite")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column is left-aligned, ``notes`` stand below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def print(self, console: Console) -> None:
        table = RichTable(title=self.title, box=box.SIMPLE_HEAD, title_justify="left")
        for n, c in enumerate(self.columns):
            table.add_column(c, justify="right" if n else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_line(r) for r in self.rows]
        return "\n".join([*lines, *(f"\n{n}" for n in self.notes)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def conditions() -> dict[str, Any]:
    """Where and when: date, load, processor, caches, system, versions of everything compared. To be asked before measuring."""
    machine = Machine.host()
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": os.getloadavg()[0],
        "processor": processor_name(),
        "cpus": len(available_cpus()),
        "machine": machine.name,
        "caches": {m.name: m.bytes for m in machine.memories if m.kind == "cache"},
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(package: str) -> str | None:
    """Version of ``package``, None when it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def conditions_text(c: dict[str, Any]) -> str:
    """The conditions as one sentence for people."""
    caches = ", ".join(f"{name} {(size or 0) >> 10:,} KiB" for name, size in c["caches"].items())
    versions = ", ".join(f"{name} {v}" for name, v in c["versions"].items())
    busy = " (busy: other processes took part of the machine)" if c["load"] > BUSY * c["cpus"] else ""
    return f"{c['date']}, load {c['load']:.1f}{busy}; {c['processor']}, {c['cpus']} processors, {caches}; Python {c['python']}, {versions}."


def geometric_mean(values: Sequence[float]) -> float:
    """NaN when there are none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def measurement_of(row: Mapping[str, Any]) -> Measurement:
    """The measurement that was put into ``row`` by ``asdict``."""
    return Measurement.from_json(json.dumps({k: row[k] for k in ("timings", "conditions")}))


def noise(measured: Mapping[str, Measurement]) -> tuple[str, ...]:
    """A note that names rows whose rounds differ too much to be trusted; nothing where there are none."""
    spread = {name: max(t.spread for t in m.timings) for name, m in measured.items()}
    noisy = [f"{name} {s:.0%}" for name, s in spread.items() if s > NOISY]
    return (
        (f"Noisy: middle half of the rounds of some contender wider than {NOISY:.0%} of its median: {', '.join(noisy)}.",) if noisy else ()
    )


def duration(seconds: float) -> str:
    """Milliseconds below a second, three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def parser(description: str | None, section: str) -> argparse.ArgumentParser:
    """Options every benchmark has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, metavar="FILE", help="write conditions and every sample to FILE")
    p.add_argument("--markdown", type=Path, metavar="FILE", help=f"put the tables into FILE, between its {section!r} marks")
    p.add_argument("--only", default="", metavar="REGEX", help="only rows whose name matches")
    return p


def threads_option(p: argparse.ArgumentParser) -> None:
    """``--threads``: one table for each number."""
    p.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, len(available_cpus()))}), help="default: 1 2")


def threads_text(threads: int) -> str:
    """For titles."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def matching(p: argparse.ArgumentParser, pattern: str, names: Iterable[str], what: str) -> list[str]:
    """The ``names`` that ``--only`` matches; the parser's error lists all when there are none."""
    names = list(names)
    found = [n for n in names if re.search(pattern, n)]
    if not found:
        p.error(f"no {what} matches {pattern!r}; there are: {', '.join(names)}")
    return found


class Rows:
    """Results of a run that may be cut: written to ``path`` as they come (nowhere if it is None), taken over from there with ``resume``.

    A row is JSON data; ``key`` are the fields that name it. Rows under the same key replace one another.
    ``conditions`` are those of the sitting that made the last row.
    """

    def __init__(self, path: Path | None, key: Sequence[str], conditions: dict[str, Any], *, resume: bool = False):
        self.path, self.key, self.conditions, self._now = path, tuple(key), conditions, conditions
        self.rows: list[dict[str, Any]] = []
        if resume and path is not None and path.exists():
            written = json.loads(path.read_text())
            self.rows, self.conditions = written["results"], written["conditions"]

    def find(self, *key: Any) -> dict[str, Any] | None:
        """The row of this key."""
        return next((r for r in self.rows if self._key(r) == key), None)

    def put(self, row: dict[str, Any]) -> None:
        """Keep a row, and write all."""
        self.conditions = self._now
        row = json.loads(json.dumps(_rounded(row)))  # as it is when it is read again
        places = [n for n, r in enumerate(self.rows) if self._key(r) == self._key(row)]
        self.rows = [r for n, r in enumerate(self.rows) if n not in places[1:]]
        if places:
            self.rows[places[0]] = row
        else:
            self.rows.append(row)
        if self.path is not None:
            write_json(self.path, self.conditions, self.rows)

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(k) for k in self.key)


def write_json(path: Path, conditions: dict[str, Any], results: Sequence[Any]) -> None:
    """Write conditions and results to ``path``, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(_json(conditions, results))
    os.replace(part, path)


def publish(options: argparse.Namespace, section: str, tables: Sequence[Table], conditions: dict[str, Any], results: Sequence[Any]) -> None:
    """Print the tables; write JSON and Markdown where the options ask for them."""
    console = Console(width=max(Console().width, WIDTH))
    console.print(conditions_text(conditions), highlight=False)
    for t in tables:
        t.print(console)
    if options.json:
        write_json(options.json, conditions, results)
    if options.markdown:
        text = "\n".join([conditions_text(conditions) + "\n", *(t.markdown() for t in tables)])
        options.markdown.write_text(_replaced(options.markdown, section, text))


def _json(conditions: dict[str, Any], results: Sequence[Any]) -> str:
    """One line for each result, numbers to five digits: raw samples are kept, and kept small."""
    lines = ",\n".join(json.dumps(_rounded(r)) for r in results)
    return f'{{"conditions": {json.dumps(conditions)},\n"results": [\n{lines}\n]}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def _replaced(path: Path, section: str, text: str) -> str:
    """The document with the part between its marks replaced (the marks are appended where they lack)."""
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    old = path.read_text() if path.exists() else ""
    if begin not in old or end not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    head, _, rest = old.partition(begin)
    return f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}"
