"""``tilewright codesign``: search a machine and the mappings of a network on it together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tilewright.cli.console import bytes_text, stdout, table
from tilewright.cli.options import Dims, integers, pairs, short_names
from tilewright.util.errors import RuntimeFailure
from tilewright.util.quantities import count_text

if TYPE_CHECKING:
    from rich.table import Table

    from tilewright.codesign.problem import Budget, Run
    from tilewright.codesign.study import Study

#: Evaluations of a layer that a machine to compare with is mapped by.
_GIVEN = 4000


def codesign(
    workloads: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK|FILE.json[:NAME]|MODEL.onnx..", help="resnet50, bert ..; layers in a file; an ONNX model. One or several."
        ),
    ],
    machine: Annotated[str, typer.Option(metavar="NAME|FILE.py", help="The family of machines.")] = "gemmini",
    objective: Annotated[str, typer.Option(help="edp, latency, throughput, energy or ed2p.")] = "edp",
    budget: Annotated[str, typer.Option(metavar="60s|5m|1e6", help="Time, or how many mappings of a layer to evaluate.")] = "60s",
    area: Annotated[float | None, typer.Option(metavar="MM2", help="At most this area.", show_default=False)] = None,
    power: Annotated[float | None, typer.Option(metavar="W", help="At most this power, at 1 GHz.", show_default=False)] = None,
    most: Annotated[
        list[str], typer.Option("--most", metavar="PARAMETER=N", help="At most this value of a parameter; repeat for more.")
    ] = [],  # noqa: B006 (typer copies it)
    fixed: Annotated[
        list[str], typer.Option("--fixed", metavar="PARAMETER=N", help="A machine that is given: search only mappings. All its parameters.")
    ] = [],  # noqa: B006
    against: Annotated[
        list[str], typer.Option("--against", metavar="PARAMETER=N", help="A machine to compare with in the report. All its parameters.")
    ] = [],  # noqa: B006
    cycles: Annotated[str, typer.Option(help="roofline; or rtl: fitted to measured cycles, where the family has them.")] = "roofline",
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Samples that run at once; they share weights.")] = 1,
    padding: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="PART", help="How far a split of a loop may overshoot (0.25: a quarter); 0: factors divide."),
    ] = 0.0,
    method: Annotated[str, typer.Option(help="gradient, dosa, genetic, two-loop, gp, tpe, random; or exact.")] = "gradient",
    compare: Annotated[str, typer.Option(metavar="METHOD,..", help="Other methods to run with as many evaluations.")] = "",
    dims: Dims = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where report and exports go.", show_default=False)] = None,
) -> None:
    """Search a machine and the mappings of one network or of several on it together.

    The machine is the smallest that all layers' mappings fit; costs are an analytical model's. Of several networks the geometric mean
    of their objectives counts. --method exact proves the
    best machine of about a thousand instead: some minutes for large networks, whatever the budget. With --out: report.html,
    mappings.txt, Timeloop YAML, and the machine in the files its tools read. Ctrl-C ends the search with the best so far.

    [bold]Examples[/]

      tilewright codesign resnet50 --budget 60s --out found

      tilewright codesign bert --objective latency --area 5 --compare random,dosa --out found

      tilewright codesign resnet50 bert vit-b16 --budget 5m --out found

      tilewright codesign layers.json --fixed dim=16 --fixed scratchpad_bytes=262144 --fixed accumulator_bytes=65536
    """
    from tilewright.codesign.problem import Limits, Problem
    from tilewright.codesign.study import study
    from tilewright.codesign.workloads import workload as layers_of
    from tilewright.hw.load import load_family

    family = load_family(machine)
    if again := [w for n, w in enumerate(workloads) if w in workloads[:n]]:
        raise typer.BadParameter(f"{again[0]} is given twice", param_hint="NETWORK")
    sizes = integers(dims, "--dim")
    open_sizes = any(w.endswith(".onnx") for w in workloads)  # what is no model beside one has nothing to bind
    bound = [sizes if w.endswith(".onnx") or not open_sizes else {} for w in workloads]
    networks = {name: layers_of(w, b) for name, w, b in zip(short_names(workloads), workloads, bound, strict=True)}
    limits = Limits(area=area, power=power, most=_numbers(most, "--most"), area_model=family.area)
    given = _numbers(fixed, "--fixed") or None
    methods = (method, *(m for m in compare.split(",") if m and m != method))
    spent = budget_of(budget)
    if against:  # what is wrong with it, and with the folder, is said before the search and not after it
        Problem.of(networks, family, hardware=_numbers(against, "--against"))
    if out is not None:
        _make(out)
    with _Bar(spent) as bar:
        found = study(
            networks, family, objective=objective, limits=limits, hardware=given, cycles=cycles, batch=batch, padding=padding, budget=spent,
            methods=methods, seed=seed, watch=bar.show,
        )  # fmt: skip
        reference = _mapped(found, _numbers(against, "--against"), seed) if against and not found.interrupted else None
    if found.interrupted:
        typer.echo("interrupted: the best so far", err=True)
    _print(stdout(), found, reference)
    found.point  # noqa: B018 (an error where there is none)
    if out is not None:
        written = export(found, " + ".join(networks), out, reference)
        stdout().print(f"{out}: {', '.join(written)}", highlight=False, markup=False)


def budget_of(text: str) -> Budget:
    """``60s``, ``5m``, ``1h``, or a number of evaluations; a usage error otherwise."""
    from tilewright.codesign.problem import Budget

    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)(s|m|h|)", text)
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is neither a time (60s, 5m) nor a number (1e6)", param_hint="--budget")
    value = float(match[1])
    return Budget(evaluations=round(value)) if not match[2] else Budget(seconds=value * {"s": 1, "m": 60, "h": 3600}[match[2]])


def export(found: Study, name: str, folder: Path, reference: Run | None = None) -> list[str]:
    """Write the report and all exports of a study into ``folder``; returns their names. RuntimeFailure when they cannot be written."""
    from tilewright.codesign.export import architecture_yaml, mapping_yaml, mappings_text, problem_yaml
    from tilewright.report.codesign import page

    family, hardware = found.problem.space.family, found.hardware
    texts = {"report.html": page(found, name, reference), "mappings.txt": mappings_text(found.layers, found.nests)}
    texts["timeloop/architecture.yaml"] = architecture_yaml(family, hardware)
    for n, (layer, nest) in enumerate(zip(found.layers, found.nests, strict=True)):
        texts[f"timeloop/layer{n}.yaml"] = problem_yaml(layer) + mapping_yaml(family, nest)
    called = re.sub(r"[^A-Za-z0-9]+", "_", f"{family.name}_{name}")  # a name in the languages of its tools
    texts |= {file: text(called, hardware) for file, text in family.files.items()}
    _make(folder / "timeloop")
    try:
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error
    return [f for f in texts if "/layer" not in f] + [f"timeloop/layer*.yaml ({len(found.layers)})"]


def _make(folder: Path) -> None:
    """Make ``folder``. RuntimeFailure when that cannot be done or nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, "Permission denied")


def _unwritable(folder: Path, why: str | None) -> RuntimeFailure:
    return RuntimeFailure(f"cannot write into {folder}: {why}", hint="name a folder that can be written (--out)")


def _numbers(texts: list[str], option: str) -> dict[str, float]:
    out = {}
    for name, value in pairs(texts, option).items():
        try:
            out[name] = float(value)
        except ValueError as error:
            raise typer.BadParameter(f"{name}={value!r} is not a number", param_hint=option) from error
    return out


def _mapped(found: Study, hardware: Mapping[str, float], seed: int) -> Run:
    """The same layers on a machine that is given, by the mapper."""
    from tilewright.codesign.baselines.mapper import elite_mutation
    from tilewright.codesign.problem import Budget, Run

    run = Run(found.problem.on(hardware), Budget(evaluations=_GIVEN * len(found.layers)), seed)
    elite_mutation(run)
    return run


def _print(console: Console, found: Study, reference: Run | None) -> None:
    from tilewright.report.codesign import CYCLES, compared, figures, samples

    runs, own = compared(found, reference), figures(found, found.run)
    columns = ("found by", "machine", "area", "cycles", "energy", "objective", "ratio", "evaluations")
    shown = table(*columns, numbers=columns[2:])
    for name, run in runs.items():
        f = figures(found, run)
        if f is None or own is None:
            shown.add_row(name, "nothing within the limits", "", "", "", "", "", f"{run.evaluations:,}")
            continue
        machine = ", ".join(
            f"{k.removesuffix('_bytes')} {bytes_text(v) if k.endswith('_bytes') else f'{v:g}'}" for k, v in f.hardware.items()
        )
        area = "" if f.area is None else f"{f.area:.2f} mm2"
        worth = count_text(f.cycles), f"{f.energy * 1e-9:.3g} mJ", f"{f.score:.4g}", f"{f.score / own.score:.2f}"
        shown.add_row(name, machine, area, *worth, f"{run.evaluations:,}")
    console.print(shown)
    if len(found.problem.names) > 1:
        console.print(_each(runs))
    console.print(f"For {samples(found)}. {CYCLES[found.cycles]}.", highlight=False)


def _each(runs: Mapping[str, Run]) -> Table:
    """What each of several networks costs, ratios to the first run's."""
    from tilewright.report.codesign import networks

    columns = ("network", "found by", "layers", "cycles", "energy", "objective", "ratio")
    shown = table(*columns, numbers=columns[2:])
    own = networks(next(iter(runs.values())))
    for name, run in runs.items():
        for first, n in zip(own, networks(run), strict=False):
            ratio = f"{n.score / first.score:.2f}"
            shown.add_row(n.name, name, str(n.layers), count_text(n.cycles), f"{n.energy * 1e-9:.3g} mJ", f"{n.score:.4g}", ratio)
    return shown


class _Bar:
    """Progress on stderr: what part of the budget is spent, and the best objective so far."""

    def __init__(self, budget: Budget):
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}")
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("co-design", total=budget.evaluations or budget.seconds, text="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, name: str, run: Run) -> None:
        done = run.seconds if run.budget.evaluations is None else run.evaluations
        text = f"best {run.best:.4g}, {run.evaluations:,} evaluations"
        total = run.budget.evaluations or run.budget.seconds
        self._bar.update(self._task, completed=done, total=total, description=name, text=text)
