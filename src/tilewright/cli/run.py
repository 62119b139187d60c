"""``tilewright run``: a network on given or made-up inputs, optionally checked against ONNX Runtime."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from tilewright.cli.app import WRONG
from tilewright.cli.comparison import agreement_table, compare
from tilewright.cli.console import seconds_text, stdout, table
from tilewright.cli.networks import compile_network
from tilewright.cli.options import (
    Dims,
    FusionName,
    LayoutsName,
    MachineName,
    Model,
    Threads,
    UseRecords,
    arrays,
    fusion_named,
    integers,
    layouts_named,
    machine_named,
)
from tilewright.cli.peers import OnnxRuntime
from tilewright.graph.inputs import random_inputs
from tilewright.util.errors import RuntimeFailure


def run(
    model: Model,
    inputs: Annotated[
        list[str], typer.Option("--input", metavar="NAME=FILE.npy", help="An input; those not given are random.", show_default=False)
    ] = [],  # noqa: B006 (typer copies it)
    output_dir: Annotated[Path | None, typer.Option(help="Write each output there as NAME.npy.", show_default=False)] = None,
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    machine: MachineName = "host",
    fusion: FusionName = "greedy",
    layouts: LayoutsName = "channels-last",
    records: UseRecords = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs: floats in [-1, 1), integers 0 or 1.")] = 0,
    against: Annotated[bool, typer.Option("--compare", help="Compare every output with ONNX Runtime; exit code 3 if one differs.")] = False,
) -> None:
    """Run an ONNX network on random or given inputs.

    [bold]Examples[/]

      tilewright run model.onnx --compare

      tilewright run model.onnx --input image=cat.npy --output-dir results

      tilewright run vit.onnx --dim batch=1 --threads 2
    """
    console = stdout()
    given = arrays(inputs, "--input")
    network, spent = compile_network(
        model, machine_named(machine), threads=threads, dims=integers(dims, "--dim"), fusion=fusion_named(fusion),
        layouts=layouts_named(layouts), records=records,
    )  # fmt: skip
    if unknown := sorted(given.keys() - set(network.input_names)):
        raise RuntimeFailure(f"the network has no input {', '.join(unknown)}", hint=f"inputs: {', '.join(network.input_names)}")
    values = random_inputs(network, seed) | given
    start = time.perf_counter()
    results = network(values)
    elapsed = time.perf_counter() - start
    console.print(f"{len(network.steps)} kernels compiled in {seconds_text(spent)}, run once in {seconds_text(elapsed)}", highlight=False)
    print_outputs(console, results)
    if output_dir is not None:
        save(results, output_dir)
    if against:
        found = compare(network, results, OnnxRuntime(model)(values))
        console.print("against ONNX Runtime", agreement_table(found))
        if not all(a.holds for a in found):
            raise typer.Exit(WRONG)


def print_outputs(console: Console, results: Mapping[str, np.ndarray]) -> None:
    """Name, type, shape and range of every output."""
    out = table("output", "type", "shape", "min", "mean", "max", "not finite", numbers=("min", "mean", "max", "not finite"))
    for name, a in results.items():
        numeric = a.astype(np.float64)
        finite = numeric[np.isfinite(numeric)]
        figures = [f"{f():.5g}" for f in (finite.min, finite.mean, finite.max)] if finite.size else ["-"] * 3
        out.add_row(name, str(a.dtype), "x".join(map(str, a.shape)) or "scalar", *figures, str(numeric.size - finite.size))
    console.print(out)


def save(results: Mapping[str, np.ndarray], folder: Path) -> None:
    """One ``.npy`` for each output (characters that no file name should have become ``_``); RuntimeFailure if it fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, a in results.items():
            np.save(folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.npy", a)
    except OSError as error:
        raise RuntimeFailure(f"cannot write outputs to {folder}: {error.strerror or error}", hint="name a writable directory") from error
