"""What Tilewright does, in a few minutes: networks compiled for this computer, an operator's mappings, another tuned, a machine designed.

    python examples/demo.py [--threads N] [--quick]

ResNet-50 as the onnx package ships it, the same network with random weights (the package fills
each weight with one number, so that all classes come out equal), and a 2-layer Vision Transformer.
Every output is compared with ONNX Runtime's; exit code 1 if one differs. Then the 49 mappings of a
convolution onto a matrix instruction, and 30 seconds of search for a faster schedule of a depthwise one. Last, a minute's search for an
accelerator and the mappings of ResNet-50 on it, with a report to open in a browser.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from light import FOLDER, light_model
from onnx import ModelProto
from rich.console import Console
from vit import ViTConfig, vit

from tilewright.cli.app import run as run_command
from tilewright.cli.comparison import agreement_table, compare
from tilewright.cli.console import busy, seconds_text, stdout, table
from tilewright.cli.networks import Layer, compile_network, layer_table, layers
from tilewright.cli.peers import OnnxRuntime, settling
from tilewright.graph.inputs import random_inputs
from tilewright.runtime import Peak, default_threads, measure, measure_peak

#: ViT-Tiny's geometry, two layers of it.
VIT = ViTConfig(image=224, patch=16, width=192, heads=3, mlp=768, layers=2, classes=1000)
#: A depthwise convolution of MobileNetV2: of the operators measured in docs/tuned_performance.md the one that gains most by search.
TUNED = "n=1,c=144,m=1,p=56,q=56,r=3,s=3"
SMALL_VIT = ViTConfig(image=32, patch=8, width=48, heads=4, mlp=96)


@dataclass(frozen=True, slots=True)
class Result:
    """What one network came to."""

    name: str
    agrees: bool
    layers: list[Layer]
    compile_seconds: float
    seconds: float
    theirs: float
    ratio: float


def show(console: Console, name: str, model: ModelProto, threads: int, peak: Peak, *, table_of_layers: bool) -> Result:
    """Compile, compare, profile and time one network."""
    console.rule(name)
    network, compile_seconds = compile_network(model, threads=threads, dims={"batch": 1} if "vit" in model.graph.name else None)
    inputs = random_inputs(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        peer = OnnxRuntime(path, threads)
    found = compare(network, network(inputs), peer(inputs))
    console.print(agreement_table(found))
    with busy("timing"):
        runs = {"tilewright": lambda: network(inputs), "onnxruntime": lambda: peer(inputs)}
        times = measure(runs, repeats=9, settle=settling(threads), threads=threads)
        profile = layers(network, repeats=5)
    if table_of_layers:
        console.print(layer_table(profile, peak))
    agrees = all(a.holds for a in found)
    ours, theirs, ratio = times["tilewright"].median, times["onnxruntime"].median, times.ratio("tilewright", "onnxruntime")
    return Result(name, agrees, profile, compile_seconds, ours, theirs, ratio)


def summary(console: Console, results: list[Result], peak: Peak) -> None:
    """All networks in one table."""
    console.rule(f"summary: {peak.threads} threads, measured peak {peak.flops / 1e9:.0f} GFLOP/s")
    columns = ("calls", "kernels", "compiled in", "time", "GFLOP/s", "of peak", "ONNX Runtime", "theirs / ours")
    out = table("network", *columns, "outputs", numbers=columns)
    for r in results:
        rate = sum(x.flops * x.calls for x in r.layers) / r.seconds
        counts = [str(sum(x.calls for x in r.layers)), str(len(r.layers)), seconds_text(r.compile_seconds)]
        speed = [seconds_text(r.seconds), f"{rate / 1e9:.1f}", f"{rate / peak.flops:.0%}", seconds_text(r.theirs), f"{r.ratio:.2f}"]
        out.add_row(r.name, *counts, *speed, "agree" if r.agrees else "[red]DIFFER[/]")
    console.print(out)


def main() -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--quick", action="store_true", help="only a small Vision Transformer, and short searches")
    options = parser.parse_args()
    console = stdout()
    with busy("measuring this computer"):
        peak = measure_peak(options.threads)
    results = []
    if not options.quick:
        shipped = onnx.load(FOLDER / "light_resnet50.onnx")
        results.append(show(console, "ResNet-50, as shipped", shipped, options.threads, peak, table_of_layers=False))
        results.append(show(console, "ResNet-50, random weights", light_model("resnet50"), options.threads, peak, table_of_layers=True))
    config = SMALL_VIT if options.quick else VIT
    results.append(show(console, f"ViT, {config.layers} layers", vit(config), options.threads, peak, table_of_layers=True))
    summary(console, results, peak)
    console.rule("tilewright map conv2d")
    mapped = run_command(["map", "conv2d"])
    console.rule("tilewright tune depthwise")
    folder = Path(tempfile.mkdtemp(prefix="tilewright-demo-"))
    budget = ["--trials", "4"] if options.quick else ["--seconds", "30"]
    # Kept: the command ends by saying how to use them.
    records = ["--records", str(folder / "records.db")]
    tuned = run_command(["tune", "depthwise", "--shape", TUNED, "--threads", str(options.threads), *budget, *records])
    console.rule("tilewright codesign resnet50")
    found = folder / "codesign"
    designed = run_command(["codesign", "resnet50", "--budget", "2s" if options.quick else "60s", "--out", str(found)])
    console.print(f"report: {found / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    return mapped or tuned or designed or int(not all(r.agrees for r in results))


if __name__ == "__main__":
    sys.exit(main())
