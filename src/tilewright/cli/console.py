"""How commands show things: tables, progress bars, quantities with units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tilewright.util.quantities import bytes_text, count_text, seconds_text

__all__ = ["busy", "bytes_text", "count_text", "progress", "seconds_text", "stdout", "table"]

#: Columns of output that goes to a file or a pipe.
_PIPE_WIDTH = 150


def stdout() -> Console:
    """The console for results: as wide as the terminal, or wide enough for every table when there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def table(*columns: str, numbers: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; ``numbers`` are the columns whose figures are aligned right."""
    out = Table(box=SIMPLE_HEAD, header_style="bold", title=title, title_justify="left")
    for c in columns:
        out.add_column(c, justify="right" if c in numbers else "left", no_wrap=c in numbers, overflow="fold")
    return out


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr, gone when the block ends; call the result with (done, total, current item)."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[item]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, item="")
        yield lambda done, total, item: bar.update(task, completed=done, total=total, item=item)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on stderr while something of unknown length runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
