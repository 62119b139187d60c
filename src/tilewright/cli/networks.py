"""Networks on the command line: compiling with a progress bar, making up inputs, a table of what was made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from tilewright.cli.console import count_text, progress, seconds_text, table
from tilewright.graph import Network
from tilewright.graph import compile as compile_model
from tilewright.ir.stmt import Kernel

if TYPE_CHECKING:
    from pathlib import Path

    from tilewright.graph.fusion import Fusion
    from tilewright.graph.layout import Layouts
    from tilewright.graph.loading import ModelSource
    from tilewright.hw import Machine
    from tilewright.runtime.peak import Peak


@dataclass(frozen=True, slots=True)
class Layer:
    """Equal kernel calls of a network: how many, what one is, what one costs (``seconds`` None: not measured)."""

    calls: int
    operators: str
    kernel: str
    result: str
    schedule: str
    flops: int
    seconds: float | None


def compile_network(
    source: ModelSource,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    dims: Mapping[str, int] | None = None,
    fusion: Fusion = "greedy",
    layouts: Layouts = "channels-last",
    records: Path | None = None,
    cache: bool = True,
) -> tuple[Network, float]:
    """The compiled network and the seconds it took, with a progress bar meanwhile."""
    start = time.perf_counter()
    with progress("compiling") as report:
        network = compile_model(
            source, machine, threads=threads, dims=dims, fusion=fusion, layouts=layouts, records=records, cache=cache, progress=report
        )
    return network, time.perf_counter() - start


def layers(network: Network, *, repeats: int = 0) -> list[Layer]:
    """The network's kernel calls, equal ones merged, in order of first use; ``repeats`` > 0 times them (after a run)."""
    merged: dict[tuple[Kernel, str], list[tuple[str, str, int, float | None]]] = {}
    for step, row in zip(network.steps, network.summary(repeats=repeats), strict=True):
        merged.setdefault((step.call.kernel, row.schedule), []).append((row.operators, row.kernel, row.flops, row.seconds))
    out = []
    for (kernel, schedule), calls in merged.items():
        operators, name, flops, _ = calls[0]
        times = [t for *_, t in calls if t is not None]
        mean = sum(times) / len(times) if times else None
        out.append(Layer(len(calls), operators, name, _shape(kernel), schedule, flops, mean))
    return out


def _shape(kernel: Kernel) -> str:
    """Shape of a kernel's last argument: what it computes."""
    return "x".join(map(str, kernel.args[-1].static_shape)) if kernel.args else ""


def layer_table(found: list[Layer], peak: Peak | None = None, title: str | None = None) -> Table:
    """Layers as a table; measured ones with time, rate, and the share of ``peak``."""
    timed = any(x.seconds is not None for x in found)
    numbers = ("calls", "flops", "time", "GFLOP/s", "of peak")
    out = table(
        "calls", "operators", "result", "mapping and tile", *numbers[1 : (5 if peak else 4) if timed else 2], numbers=numbers, title=title
    )
    for x in found:
        cells = [str(x.calls), x.operators, x.result, x.schedule, count_text(x.flops)]
        if timed and x.seconds:
            cells += [seconds_text(x.seconds), f"{x.flops / x.seconds / 1e9:.1f}"]
            cells += [f"{x.flops / x.seconds / peak.flops:.0%}"] if peak else []
        out.add_row(*cells)
    if timed:
        flops, seconds = sum(x.flops * x.calls for x in found), sum((x.seconds or 0.0) * x.calls for x in found)
        share = [f"{flops / seconds / peak.flops:.0%}"] if peak and seconds else []
        out.add_section()
        out.add_row(
            str(sum(x.calls for x in found)),
            "all",
            "",
            "",
            count_text(flops),
            seconds_text(seconds),
            f"{flops / max(seconds, 1e-12) / 1e9:.1f}",
            *share,
        )
    return out
