"""``tilewright tune``: search schedules for a network, an operator or a kernel of your own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tilewright.cli.console import seconds_text, stdout, table
from tilewright.cli.operator_models import one_node
from tilewright.cli.options import (
    Dims,
    FusionName,
    LayoutsName,
    MachineName,
    RecordsFile,
    Shape,
    Threads,
    fusion_named,
    integers,
    layouts_named,
    machine_named,
    short_names,
)
from tilewright.cli.programs import extents_of, kernel_of, load_program
from tilewright.runtime.records import RecordStore, records_path
from tilewright.space.rule import Rule, discover
from tilewright.space.rule_file import load_rule
from tilewright.space.space import Space
from tilewright.tune.network import Model, tune_networks
from tilewright.tune.results import NetworkProgress, NetworkTuning
from tilewright.tune.session import TuneResult
from tilewright.tune.session import tune as tune_kernel
from tilewright.util.errors import TuneError

if TYPE_CHECKING:
    from tilewright.runtime.jobs import Executor
    from tilewright.tune.session import Progress as KernelProgress

_FUSION, _LAYOUTS = "greedy", "channels-last"


def tune(
    programs: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL.onnx..|OPERATOR|FILE.py:KERNEL",
            help="A network, or several that share the budget; an operator (matmul, conv2d ..); your kernel.",
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates to measure in all (default: 64 per kernel; 200 of one).", show_default=False),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Wall clock to spend.", show_default=False)] = None,
    shape: Shape = "",
    dims: Dims = [],  # noqa: B006 (typer copies it)
    threads: Threads = None,
    machine: MachineName = "host",
    fusion: FusionName = _FUSION,
    layouts: LayoutsName = _LAYOUTS,
    author: Annotated[str, typer.Option(help="Who proposes candidates: xgb, gradient, evolutionary, annealing, random ..")] = "xgb",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    goal: Annotated[
        list[float],
        typer.Option(
            metavar="MS",
            help="Milliseconds that all kernels of a network may take: then it is tuned no more. Of several networks one each, in order.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 (typer copies it)
    records: RecordsFile = None,
    rule: Annotated[
        list[str],
        typer.Option(metavar="FILE.py:NAME", help="A rule of your own for the schedule spaces; repeat for more.", show_default=False),
    ] = [],  # noqa: B006 (typer copies it)
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Measure on the workers of a Dask scheduler; local or local:N starts one here.", show_default=False
        ),
    ] = None,
) -> None:
    """Search schedules for a network, an operator or a kernel of your own.

    Every trial is recorded; started again after a kill or Ctrl-C, the search goes on where it was. The best
    schedules are then used by [bold]tilewright compile[/] and [bold]run[/] with --records.

    [bold]Examples[/]

      tilewright tune model.onnx --seconds 600 --threads 1

      tilewright tune matmul --shape i=197,j=768,k=3072 --trials 100

      tilewright tune vit.onnx --dim batch=1 --fusion dp --records vit.db

      tilewright tune vit.onnx bert.onnx --goal 20 --goal 35 --seconds 1200

      tilewright tune kernels.py:gemm --seconds 30 --rule rules.py:blocks
    """
    console = stdout()
    target = machine_named(machine)
    own = ".py" in programs[0]
    if len(programs) > 1 and not all(p.endswith(".onnx") for p in programs):
        raise typer.BadParameter("only networks (MODEL.onnx) are tuned together", param_hint="MODEL.onnx..")
    of_networks = {"--goal": goal, "--dim": dims, "--fusion": fusion != _FUSION, "--layouts": layouts != _LAYOUTS}
    _refuse_options_of_others(programs[0], own, shape, of_networks)
    rules: list[Rule] | None = [*map(load_rule, rule), *discover()] if rule else None
    with ExitStack() as stack:
        store = stack.enter_context(RecordStore(records or records_path()))
        executor = _cluster(cluster, stack)
        show = stack.enter_context(_Bar(trials, seconds))
        if own:
            space = Space(kernel_of(load_program(programs[0])), target, threads, rules=rules)
            found = tune_kernel(
                space, trials=trials, seconds=seconds, author=author, seed=seed, records=store,
                executor=executor, progress=show.kernel, subject=programs[0],
            )  # fmt: skip
        else:
            networks = tune_networks(
                _models(programs, shape, dims, goal), target, records=store, trials=trials, seconds=seconds, threads=threads,
                fusion=fusion_named(fusion), layouts=layouts_named(layouts), author=author, seed=seed, executor=executor,
                progress=show.network, rules=rules,
            )  # fmt: skip
    if own:
        _print_kernel(console, found)
    else:
        for name, network in zip(short_names(programs), networks, strict=True):
            if len(networks) > 1:
                console.rule(escape(name), align="left")
            _print_network(console, network)
        console.print(f"session {networks[0].session} in {store.path}: use it with --records {store.path}", highlight=False)


def _refuse_options_of_others(program: str, own: bool, shape: str, of_networks: Mapping[str, object]) -> None:
    """Usage errors for options that would change nothing here: extents of an operator, and what networks are asked."""
    if shape and (own or program.endswith(".onnx")):
        raise typer.BadParameter(f"is for operators, and {program} is none", param_hint="--shape")
    for option, given in of_networks.items():
        if own and given:
            raise typer.BadParameter("is for networks", param_hint=option)


def _models(programs: list[str], shape: str, dims: list[str], goals: list[float]) -> list[Model]:
    """The networks with what is said of each: goals in their order, dimensions for all of them or, as MODEL:NAME=N, for one."""
    if goals and len(goals) != len(programs):
        raise typer.BadParameter(f"{len(goals)} for {len(programs)} networks: give one each (0: none)", param_hint="--goal")
    bound = integers(dims, "--dim")
    names = short_names(programs)
    common = {k: n for k, n in bound.items() if not k.startswith(tuple(f"{name}:" for name in names))}
    out = []
    for program, name, goal in zip(programs, names, goals or [0.0] * len(programs), strict=True):
        own = {k.removeprefix(f"{name}:"): n for k, n in bound.items() if k.startswith(f"{name}:")}
        source = program if program.endswith(".onnx") else _operator(program, shape)
        out.append(Model(source, goal / 1e3, common | own))
    return out


def _operator(name: str, shape: str) -> bytes:
    """The operator as a network of one node whose second operand is known, as weights are."""
    node = one_node(name, extents_of(shape))
    return node.model(node.operands()["w"]).SerializeToString()


def _cluster(address: str | None, stack: ExitStack) -> Executor | None:
    if address is None:
        return None
    from tilewright.runtime.cluster import open_cluster

    cluster = open_cluster(address)
    stack.callback(cluster.close)
    return cluster


class _Bar:
    """Progress on stderr while tuning: trials, time, best against no tuning."""

    def __init__(self, trials: int | None, seconds: float | None):
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}")
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._trials, self._seconds = trials, seconds
        self._task = self._bar.add_task("tuning", total=trials if seconds is None else seconds, text="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.stop()

    def kernel(self, p: KernelProgress) -> None:
        self._show(p.trials, p.elapsed, p.best, p.baseline, f"{p.failed} failed" if p.failed else "")

    def network(self, p: NetworkProgress) -> None:
        self._show(p.trials, p.elapsed, p.seconds, p.baseline, p.latest)

    def _show(self, trials: int, elapsed: float, best: float, baseline: float, note: str) -> None:
        text = f"{trials} trials, {seconds_text(best)} (untuned {seconds_text(baseline)}) {note}"
        self._bar.update(self._task, completed=trials if self._seconds is None else elapsed, text=text)


def _print_network(console: Console, found: NetworkTuning) -> None:
    if not found.tasks:
        raise TuneError("nothing was measured", hint="give more --seconds or --trials")
    out = table("calls", "operators", "untuned", "tuned", "gain", "trials", numbers=("calls", "untuned", "tuned", "gain", "trials"))
    for t in found.tasks:
        gain = f"{t.gain:.2f}" + ("" if t.confirmed or t.gain == 1.0 else "?")
        out.add_row(str(t.weight), t.operators, seconds_text(t.baseline), seconds_text(t.seconds), gain, str(t.trials))
    console.print(out)
    for t in found.tasks:
        if t.stopped:
            console.print(f"ended early: {t.operators}, {t.weight} calls: {t.stopped}", highlight=False, markup=False)
    for s in found.skipped:
        console.print(f"not tuned: {s.operators}, {s.weight} calls: {s.reason}", highlight=False, markup=False)
    console.print(
        f"kernels together: {seconds_text(found.baseline)} untuned, {seconds_text(found.seconds)} tuned "
        f"({found.baseline / found.seconds:.2f} times as fast), after {seconds_text(found.elapsed)}, ended by {found.reason}\n"
        f"{_verdict(found)}",
        highlight=False,
        end="",
    )


def _verdict(found: NetworkTuning) -> str:
    """What the comparison of the whole network said, as a line."""
    v = found.verdict
    if v is None:
        return ""
    back = f"; faster on their own only, and left as they were: {', '.join(v.reverted)}" if v.reverted else ""
    if v.kept:
        times = f"{seconds_text(v.baseline)} untuned, {seconds_text(v.seconds)} tuned ({v.gain:.2f} times as fast)"
        return f"network in turns: {times}, {len(v.tuned)} kernels with tuned schedules{back}\n"
    return f"the network is not faster with tuned schedules: it is used as it was without tuning{back}\n"


def _print_kernel(console: Console, found: TuneResult) -> None:
    sure = "" if found.confirmed else " (not confirmed by a final comparison)"
    console.print(
        f"{seconds_text(found.baseline)} untuned, {seconds_text(found.seconds)} tuned ({found.gain:.2f} times as fast){sure}, "
        f"{len(found.history) - 1} trials in {seconds_text(found.elapsed)}, ended by {found.reason}",
        highlight=False,
    )
    console.print(str(found.trace), highlight=False)
