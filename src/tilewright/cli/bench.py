"""``tilewright bench``: interleaved timing against other runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from tilewright.cli.app import WRONG
from tilewright.cli.comparison import agreement_table, compare
from tilewright.cli.console import busy, count_text, seconds_text, stdout, table
from tilewright.cli.networks import compile_network
from tilewright.cli.operator_models import OneNode, one_node
from tilewright.cli.options import Dims, Shape, Threads, integers
from tilewright.cli.peers import Call, OnnxRuntime, installed, settling, torch_call
from tilewright.cli.programs import extents_of
from tilewright.graph import Network
from tilewright.graph.inputs import random_inputs
from tilewright.runtime.measurement import Measurement, measure
from tilewright.runtime.peak import measure_peak
from tilewright.runtime.pool import default_threads
from tilewright.util.errors import RuntimeFailure

OURS = "tilewright"


def bench(
    program: Annotated[
        str, typer.Argument(metavar="MODEL.onnx|OPERATOR", help="A network; or matmul, matvec, conv2d, depthwise, grouped, dilated.")
    ],
    shape: Shape = "",
    dims: Dims = [],  # noqa: B006 (typer copies it)
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; every round times each contender once, in changing order.")] = 15,
    constant: Annotated[
        bool, typer.Option("--constant/--no-constant", help="An operator's second operand is known beforehand, as weights are.")
    ] = True,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all samples and conditions there.", show_default=False)] = None,
) -> None:
    """Time a network or an operator against ONNX Runtime and PyTorch.

    All contenders use the same number of threads, on the same processors, in the same rounds, and
    their results are compared before anything is timed (exit code 3 if they differ).
    "vs" is the median over the rounds of their time divided by ours: above 1, we are faster.

    [bold]Examples[/]

      tilewright bench model.onnx --threads 1

      tilewright bench matmul --shape i=197,j=768,k=3072 --threads 1

      tilewright bench conv2d --shape k=256,c=64,r=1,s=1 --json conv.json
    """
    console, count = stdout(), threads or default_threads()
    network, inputs, contenders = (
        _operator(program, shape, count, constant) if not program.endswith(".onnx") else _network(program, dims, count)
    )
    checked = _check(console, network, inputs, contenders)
    with busy("timing"):
        result = measure(contenders, repeats=repeats, settle=settling(count), threads=count)
        peak = measure_peak(count)
    flops = sum(row.flops for row in network.summary())
    print_timings(console, result, flops, peak.flops)
    if json is not None:
        try:
            result.save(json)
        except OSError as error:
            raise RuntimeFailure(f"cannot write {json}: {error.strerror}") from error
    if not checked:
        raise typer.Exit(WRONG)


def _network(path: str, dims: list[str], threads: int) -> tuple[Network, dict[str, np.ndarray], dict[str, Call]]:
    network, _ = compile_network(path, threads=threads, dims=integers(dims, "--dim"))
    inputs = random_inputs(network)
    contenders: dict[str, Call] = {OURS: lambda: network(inputs)}
    if installed("onnxruntime"):
        session = OnnxRuntime(path, threads)
        contenders["onnxruntime"] = lambda: session(inputs)
    return network, inputs, contenders


def _operator(name: str, shape: str, threads: int, constant: bool) -> tuple[Network, dict[str, np.ndarray], dict[str, Call]]:
    node: OneNode = one_node(name, extents_of(shape))
    operands = node.operands()
    model = node.model(operands["w"] if constant else None)
    network, _ = compile_network(model, threads=threads)
    inputs = {n: operands[n] for n in network.input_names}
    contenders: dict[str, Call] = {OURS: lambda: network(inputs)}
    if installed("onnxruntime"):
        session = OnnxRuntime(model.SerializeToString(), threads)
        contenders["onnxruntime"] = lambda: session(inputs)
    if (call := torch_call(node.kind, operands, node.attributes, threads)) is not None:
        contenders["torch"] = call
    return network, inputs, contenders


def _check(console: Console, network: Network, inputs: Mapping[str, np.ndarray], contenders: Mapping[str, Call]) -> bool:
    """Whether our outputs are the peers'; prints what differs, and who is not there to be compared with."""
    others = [name for name in contenders if name != OURS]
    if not others:
        console.print("[yellow]no peer is installed[/]: pip install onnxruntime")
    ours, good = network(dict(inputs)), True
    for name in others:
        result: Any = contenders[name]()
        theirs = result if isinstance(result, dict) else {network.output_names[0]: result.numpy()}
        found = compare(network, ours, theirs)
        if not all(a.holds for a in found):
            console.print(f"against {name}", agreement_table(found))
            good = False
    return good


def print_timings(console: Console, result: Measurement, flops: int, peak: float) -> None:
    """Times, rates and ratios, and the conditions they hold under."""
    out = table("", "min", "median", "spread", "GFLOP/s", "of peak", "vs", numbers=("min", "median", "spread", "GFLOP/s", "of peak", "vs"))
    for t in result.timings:
        ratio = "" if t.name == OURS else f"{result.ratio(OURS, t.name):.2f}"
        rate = flops / t.min
        out.add_row(
            t.name, seconds_text(t.min), seconds_text(t.median), f"{t.spread:.0%}", f"{rate / 1e9:.1f}", f"{rate / peak:.0%}", ratio
        )
    console.print(out)
    c = result.conditions
    console.print(
        f"{count_text(flops)} operations, {c.threads} threads, {c.repeats} rounds, load {c.load:.1f}, {c.processor}", highlight=False
    )
