"""The command group: commands load when they are called, errors are printed for people."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tilewright.util.errors import TilewrightError
from tilewright.util.version import __version__

#: Exit codes, as ``tilewright --help`` explains them (2 is the option parser's).
FAILED, WRONG = 1, 3
_EPILOG = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 a check found wrong results."


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: where its function (or group of functions) lives, and the first line of its help."""

    name: str
    home: str
    summary: str


ENTRIES = (
    Entry("run", "run:run", "Run an ONNX network on random or given inputs."),
    Entry("compile", "compile:compile_command", "Compile an ONNX network and show what it becomes."),
    Entry("tune", "tune:tune", "Search schedules for a network, an operator or a kernel of your own."),
    Entry("bench", "bench:bench", "Time a network or an operator against ONNX Runtime and PyTorch."),
    Entry("build", "build:build", "Write a kernel or a network's kernels as object files, assembly, LLVM IR or C headers."),
    Entry("opt", "opt:opt", "Print a program at each level of its lowering, down to instruction words, C or MLIR."),
    Entry("map", "map:map_command", "List the mappings of an operator onto an instruction, least padded work first."),
    Entry("explain", "explain:explain", "Explain a schedule: what was done to a kernel, or why a step or mapping is refused."),
    Entry("codesign", "codesign:codesign", "Search a machine and the mappings of one network or of several on it together."),
    Entry("machine", "machine:app", "Show declared machines: this computer, the library's, your own."),
    Entry("doctor", "doctor:doctor", "Check what works on this computer and say what to do about the rest."),
    Entry("records", "records:app", "Show, export, import and delete what tuning measured."),
    Entry("report", "report:report", "Write an HTML page about tuning: curves, winners, roofline, time split, fusion plan."),
    Entry("worker", "worker:worker", "Build and measure trials for `tilewright tune --cluster ADDRESS` on other computers."),
    Entry("cache", "cache:app", "Show or clear the build cache."),
)


def build_app() -> typer.Typer:
    """The whole command line: call it to parse ``sys.argv`` (or ``args=``)."""
    app = typer.Typer(cls=Commands, epilog=_EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.callback()(options)
    return app


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=lambda v: _version(v))
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")] = False,
) -> None:
    """Compile tensor programs for declared machines.

    Start with [bold]tilewright doctor[/], then [bold]tilewright run model.onnx --compare[/].
    Every command has examples: [bold]tilewright COMMAND --help[/].
    """


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tilewright {__version__}")
        raise typer.Exit


class Commands(TyperGroup):
    """Holds only names and summaries; a command's module is imported when the command is called."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        for entry in ENTRIES:
            self.add_command(TyperCommand(entry.name, help=entry.summary), entry.name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``--debug`` may stand anywhere."""
        if "--debug" in args:
            args = ["--debug", *(a for a in args if a != "--debug")]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself in place of its stand-in."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command = load(next(e for e in ENTRIES if e.name == name))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error Tilewright raised on purpose becomes its message and exit code 1."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = print_warning
                return super().invoke(ctx)
        except (TilewrightError, MemoryError, OSError) as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):  # a reader that had enough: no failure
                raise
            print_error(error if isinstance(error, TilewrightError) else _refusal(error))
            raise typer.Exit(FAILED) from error


def _refusal(error: MemoryError | OSError) -> TilewrightError:
    """What the system refused and no command met by itself: memory, or room for what is printed."""
    if isinstance(error, MemoryError):
        said = f"memory does not suffice: {error}" if str(error) else "memory does not suffice"
        return TilewrightError(said, hint="smaller sizes, or a computer with more memory; --debug shows what asked for it")
    where = f" ({error.filename})" if error.filename else ""
    return TilewrightError(f"the system refused: {error.strerror or error}{where}", hint="--debug shows what was tried")


def load(entry: Entry) -> Any:
    """The command of ``entry``, imported now."""
    module, _, name = entry.home.partition(":")
    target = getattr(import_module(f"tilewright.cli.{module}"), name)
    if isinstance(target, typer.Typer):
        return get_command(target)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command(name=entry.name)(target)
    return get_command(app)


def print_error(error: TilewrightError) -> None:
    """Message and hint on stderr."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    where = f"{error.location}\n  " if error.location else ""
    console.print(f"[red]error:[/] {escape(where + error.message)}", highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f"  [cyan]hint:[/] {escape(error.hint)}", highlight=False, soft_wrap=True)


def print_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning for people: what is said, not which line of ours says it."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)


def run(args: Sequence[str]) -> int:
    """Run the command line ``args`` in this process; returns its exit code."""
    try:
        build_app()(args=list(args), prog_name="tilewright")
    except SystemExit as end:
        return int(end.code or 0)
    return 0
