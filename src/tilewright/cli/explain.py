"""``tilewright explain``: what a schedule did, and why a step or a mapping is refused."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax

from tilewright.cli.console import busy, seconds_text, stdout
from tilewright.cli.options import MachineName, Shape, Threads, machine_named
from tilewright.cli.programs import extents_of, kernel_of, load_program
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime.pool import default_threads
from tilewright.schedule.primitive import discover
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.space.default import Plan


def explain(
    program: Annotated[
        str, typer.Argument(metavar="FILE.py:KERNEL|OPERATOR", help="A kernel or schedule in a file, or an operator (matmul, conv2d ...).")
    ],
    apply: Annotated[
        list[str],
        typer.Option(
            metavar="STEP",
            help='Apply a step instead of the default schedule: "io, ii = split(i, 14)"; repeat for more.',
            show_default=False,
        ),
    ] = [],  # noqa: B006 (typer copies it)
    mapping: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='A mapping to judge: "i<-n*p j<-k"; "?" shows what could ride on each axis.', show_default=False),
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="With --mapping: the instruction of --machine.", show_default=False)] = None,
    machine: MachineName = "host",
    threads: Threads = None,
    shape: Shape = "",
    steps: Annotated[bool, typer.Option(help="List the steps.")] = True,
    code: Annotated[bool, typer.Option(help="Print the kernel before and after.")] = True,
) -> None:
    """Explain a schedule: what was done to a kernel, or why a step or mapping is refused.

    Without further options: the steps of the default schedule and the kernel they lead to.
    A refused step names the loop, the rule and, where order matters, two iterations that would run
    the wrong way round; exit code 1. The primitives are listed by [bold]--apply ?[/].

    [bold]Examples[/]

      tilewright explain matmul --shape i=512,j=512,k=512

      tilewright explain kernels.py:gemm --apply "io, ii = split(i, 14)" --apply "reorder(ii, k)"

      tilewright explain conv2d --mapping "i<-r j<-k k<-c" --machine cuda.sm80 --instruction wmma_f16.m16n16k16
    """
    console = stdout()
    if apply == ["?"]:
        _print_primitives(console)
        return
    device, extents = machine_named(machine), extents_of(shape)
    if mapping is not None:
        _explain_mapping(console, program, mapping, device, instruction, extents)
        return
    loaded = load_program(program, extents)
    kernel = kernel_of(loaded)
    planned: Plan | None = None
    if apply:
        sch = applied(kernel, device, apply)
    elif isinstance(loaded, Schedule):
        sch = loaded
    else:
        with busy("scheduling"):
            planned = _planned(kernel, device, threads)
        sch = planned.schedule
    if code and sch is not loaded:
        _print_kernel(console, "before", kernel)
    if planned is not None:
        _print_decisions(console, planned)
    if steps:
        _print_steps(console, sch.trace)
    if code:
        _print_kernel(console, "after", sch.kernel)


def _planned(kernel: Kernel, machine: Machine, threads: int | None) -> Plan:
    from tilewright.space.default import plan

    return plan(kernel, machine, threads=threads or default_threads(), estimated=True)


def applied(kernel: Kernel, machine: Machine, steps: list[str]) -> Schedule:
    """``kernel`` after ``steps`` like ``"io, ii = split(i, 14)"``; later steps may use the names on the left.

    ScheduleError when a step cannot be read, or is refused.
    """
    sch = Schedule(kernel, machine)
    names: dict[str, str] = {}
    for text in steps:
        targets, primitive, args, kwargs = read_step(text)
        results = sch.apply(primitive, *(_renamed(a, names) for a in args), **{k: _renamed(v, names) for k, v in kwargs.items()})
        if targets and len(targets) != len(results):
            raise ScheduleError(
                f"{text!r} names {len(targets)} results, {primitive} returns {len(results)}: {', '.join(results) or 'none'}"
            )
        names.update(zip(targets, results, strict=False))
    return sch


def read_step(text: str) -> tuple[tuple[str, ...], str, tuple[Any, ...], dict[str, Any]]:
    """Names on the left, primitive, positional and keyword arguments of a step; bare names are loops and buffers."""
    try:
        (statement,) = ast.parse(text.strip()).body
        targets: tuple[str, ...] = ()
        if isinstance(statement, ast.Assign):
            (left,) = statement.targets
            targets = tuple(n.id for n in (left.elts if isinstance(left, ast.Tuple) else [left]) if isinstance(n, ast.Name))
            value: ast.expr = statement.value
        elif isinstance(statement, ast.Expr):
            value = statement.value
        else:
            raise ValueError("not a call")
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
            raise ValueError("not a call")
        keywords = {str(k.arg): _plain(k.value) for k in value.keywords if k.arg is not None}
        return targets, value.func.id, tuple(map(_plain, value.args)), keywords
    except (SyntaxError, ValueError) as error:
        raise ScheduleError(f"cannot read step {text!r}: {error}", hint='write it like "io, ii = split(i, 14)"') from error


def _plain(node: ast.expr) -> Any:
    """A name as its text, a literal as its value, lists of them as tuples."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(map(_plain, node.elts))
    return ast.literal_eval(node)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed(v, names) for v in value)
    return names.get(value, value) if isinstance(value, str) else value


def _explain_mapping(
    console: Console, operator: str, text: str, machine: Machine, instruction: str | None, extents: dict[str, int]
) -> None:
    from tilewright.cli.map import choose_targets, operator_for
    from tilewright.mapping import explain as explain_mapping

    target = choose_targets(machine, instruction, operator, extents)[0]
    wanted = None if text == "?" else text
    console.print(escape(explain_mapping(operator_for(operator, target, extents), target, wanted)), highlight=False, soft_wrap=True)


def _print_decisions(console: Console, planned: Plan) -> None:
    for d in planned.decisions:
        console.print(f"[bold]chosen[/] for {escape(str(d))}", highlight=False, soft_wrap=True)
    if planned.seconds is not None:
        console.print(f"[bold]estimated[/] at {seconds_text(planned.seconds)}", highlight=False, soft_wrap=True)
    for rule in planned.refused:
        console.print(f"[yellow]refused[/] {escape(rule)}", highlight=False, soft_wrap=True)


def _print_steps(console: Console, trace: Trace) -> None:
    console.print(f"[bold]{len(trace)} steps[/], each proved before it was taken")
    width = len(str(len(trace)))
    for number, step in enumerate(trace.steps, 1):
        console.print(f"  {number:>{width}}  {escape(str(step))}", highlight=False, soft_wrap=True)


def _print_kernel(console: Console, title: str, kernel: Kernel) -> None:
    console.print(f"[bold]{title}[/]")
    if console.is_terminal:
        console.print(Syntax(str(kernel), "python", background_color="default"))
    else:
        console.print(escape(str(kernel)), highlight=False, soft_wrap=True)


def _print_primitives(console: Console) -> None:
    for name, function in sorted(discover().items()):
        summary = (function.__doc__ or "").strip().partition("\n")[0]
        console.print(f"[bold]{name}[/]  {escape(summary)}", highlight=False)
