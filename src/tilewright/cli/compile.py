"""``tilewright compile``: what a network becomes."""

from __future__ import annotations

from typing import Annotated

import typer

from tilewright.cli.console import busy, bytes_text, count_text, seconds_text, stdout
from tilewright.cli.networks import compile_network, layer_table, layers
from tilewright.cli.options import (
    Dims,
    FusionName,
    LayoutsName,
    MachineName,
    Model,
    Threads,
    UseRecords,
    fusion_named,
    integers,
    layouts_named,
    machine_named,
)
from tilewright.graph.inputs import random_inputs
from tilewright.runtime.peak import measure_peak
from tilewright.runtime.pool import default_threads


def compile_command(
    model: Model,
    dims: Dims = [],  # noqa: B006 (typer copies it)
    threads: Threads = None,
    machine: MachineName = "host",
    fusion: FusionName = "greedy",
    layouts: LayoutsName = "channels-last",
    records: UseRecords = None,
    profile: Annotated[
        int, typer.Option(min=0, help="Also run it N times and show each kernel's time and share of the measured peak.")
    ] = 0,
    cache: Annotated[bool, typer.Option(help="Take kernels from the build cache and put them there.")] = True,
) -> None:
    """Compile an ONNX network and show what it becomes.

    One row for each distinct kernel: how often it is called, the operators it fuses, the shape it
    computes, its schedule, and its arithmetic operations.

    [bold]Examples[/]

      tilewright compile model.onnx

      tilewright compile model.onnx --threads 1 --profile 20

      tilewright compile vit.onnx --dim batch=4 --fusion dp

      tilewright compile model.onnx --records tuned.db
    """
    console = stdout()
    network, spent = compile_network(
        model,
        machine_named(machine),
        threads=threads,
        dims=integers(dims, "--dim"),
        fusion=fusion_named(fusion),
        layouts=layouts_named(layouts),
        records=records,
        cache=cache,
    )
    peak = None
    if profile:
        with busy("measuring"):
            network(random_inputs(network))
            peak = measure_peak(threads or default_threads())
    found = layers(network, repeats=profile)
    console.print(layer_table(found, peak))
    plan = network.memory
    lines = [
        f"{len(network.steps)} kernel calls, {len(found)} distinct kernels, {count_text(sum(x.calls * x.flops for x in found))} operations",
        f"memory {bytes_text(plan.size)} for intermediate values ({bytes_text(plan.unshared)} without reuse)",
        f"fusion {network.fusion}",
        f"compiled in {seconds_text(spent)}",
    ]
    if peak is not None:
        lines.append(f"measured peak {peak.flops / 1e9:.0f} GFLOP/s, {peak.bandwidth / 1e9:.1f} GB/s on {peak.threads} threads")
    console.print("\n".join(lines), highlight=False)
