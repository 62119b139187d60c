"""``tilewright report``: a page about tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.console import busy, bytes_text, stdout
from tilewright.cli.options import (
    Dims,
    FusionName,
    LayoutsName,
    MachineName,
    Threads,
    fusion_named,
    integers,
    layouts_named,
    machine_named,
)
from tilewright.report import write
from tilewright.runtime.records import RecordStore, records_path

if TYPE_CHECKING:
    from tilewright.graph.network import Network


def report(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="RECORDS", help="The records (default: TILEWRIGHT_RECORDS, or the user's own).", show_default=False),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="First characters of a session's id (default: the latest).", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All records of the file, whatever their session.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL.onnx", help="Also draw the fusion plan of this network.", show_default=False)
    ] = None,
    dims: Dims = [],  # noqa: B006 (typer copies it)
    threads: Threads = None,
    machine: MachineName = "host",
    fusion: FusionName = "greedy",
    layouts: LayoutsName = "channels-last",
) -> None:
    """Write an HTML page about tuning: curves, winners, roofline, time split, fusion plan.

    One file that needs no network and no scripts: send it, keep it, print it. --dim, --threads, --machine,
    --fusion and --layouts say how the model was divided into kernels: give what `tilewright tune` was given.

    [bold]Examples[/]

      tilewright report -o report.html

      tilewright report vit.db --session 20261121-0830 --model vit.onnx --dim batch=1 --fusion dp

      tilewright report --all -o authors.html
    """
    if session is not None and everything:
        raise typer.BadParameter("takes records of every session: leave --session out", param_hint="--all")
    network = None
    with RecordStore(file or records_path(), readonly=True) as store, busy("writing"):
        if model is not None:
            network = _divided(model, machine, threads, fusion, layouts, integers(dims, "--dim"))
        findings = write(store, output, session, network, everything=everything)
    trials = sum(len(t.trials) for t in findings.tasks)
    more = f" ({findings.elsewhere} more by other sessions: --all)" if findings.elsewhere else ""
    stdout().print(
        f"{output}: {findings.subject}, {trials} trials of {len(findings.tasks)} tasks{more}, {bytes_text(output.stat().st_size)}",
        highlight=False, markup=False,
    )  # fmt: skip


def _divided(model: Path, machine: str, threads: int | None, fusion: str, layouts: str, dims: dict[str, int]) -> Network:
    """The network as it is divided into kernels; nothing is built."""
    from tilewright.graph.compiler import prepare
    from tilewright.graph.importer import load
    from tilewright.graph.network import Network

    prepared = prepare(
        load(model, dims=dims), machine_named(machine), threads=threads, fusion=fusion_named(fusion), layouts=layouts_named(layouts)
    )
    return Network(prepared.graph, prepared.steps, fusion=prepared.fusion)
