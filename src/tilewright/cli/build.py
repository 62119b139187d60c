"""``tilewright build``: code for other programs."""

from __future__ import annotations

import json
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.console import busy, bytes_text, progress, stdout, table
from tilewright.cli.options import Dims, MachineName, Shape, Threads, integers, machine_named
from tilewright.cli.programs import extents_of, kernel_of, load_program
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.runtime import jit
from tilewright.runtime.exporter import export, header_text
from tilewright.runtime.module import emit_kernel
from tilewright.runtime.pool import default_threads
from tilewright.runtime.signature import signature
from tilewright.runtime.target import of_machine
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import RuntimeFailure

if TYPE_CHECKING:
    from tilewright.graph.network import Network


class Emit(StrEnum):
    """What to write."""

    obj = "obj"
    asm = "asm"
    llvm = "llvm"
    header = "header"


_SUFFIX = {Emit.obj: ".o", Emit.asm: ".s", Emit.llvm: ".ll", Emit.header: ".h"}


def build(
    program: Annotated[
        str, typer.Argument(metavar="FILE.py:KERNEL|OPERATOR|MODEL.onnx", help="A kernel or schedule in a file, an operator, or a network.")
    ],
    emit: Annotated[Emit, typer.Option(help="obj and its C header; asm; llvm; or only the header.")] = Emit.obj,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write (a network: directory). Without it obj goes to NAME.o, text to stdout.",
            show_default=False,
        ),
    ] = None,
    as_written: Annotated[bool, typer.Option("--as-written", help="Do not schedule the kernel.")] = False,
    parallel: Annotated[
        bool, typer.Option(help="Include the thread pool (link with -pthread), or run parallel loops on the caller's thread.")
    ] = True,
    machine: MachineName = "host",
    threads: Threads = None,
    shape: Shape = "",
    dims: Dims = [],  # noqa: B006 (typer copies it)
) -> None:
    """Write a kernel or a network's kernels as object files, assembly, LLVM IR or C headers.

    The object needs only libc and libm. Its header says how to call it. A network becomes a
    directory: one object and header for each distinct kernel, and plan.json with the order of the
    calls, their arguments, and where each value lies in the arena.

    [bold]Examples[/]

      tilewright build kernels.py:gemm --emit obj -o gemm.o && cc main.c gemm.o -lm -pthread

      tilewright build matmul --shape i=64,j=64,k=64 --emit asm

      tilewright build model.onnx -o compiled/
    """
    device = machine_named(machine)
    if program.endswith(".onnx"):
        _build_network(Path(program), emit, output or Path(Path(program).stem), device, threads, integers(dims, "--dim"), parallel)
        return
    loaded = load_program(program, extents_of(shape))
    kernel = kernel_of(loaded)
    if not (as_written or isinstance(loaded, Schedule)):
        with busy("scheduling"):
            kernel = _scheduled(kernel, device, threads)
    if output is None and emit is not Emit.obj:
        typer.echo(text_of(kernel, emit, device, parallel), nl=False)
        return
    for path in write(kernel, output or Path(kernel.name + ".o"), emit, device, parallel):
        typer.echo(f"{path}: {bytes_text(path.stat().st_size)}")


def _scheduled(kernel: Kernel, machine: Machine, threads: int | None) -> Kernel:
    """The kernel by the default schedule, with a warning for each rule that did not apply."""
    from tilewright.space.default import plan

    planned = plan(kernel, machine, threads=threads or default_threads())
    for rule in planned.refused:
        warnings.warn(f"{kernel.name} is slower than it could be, a rule of the default schedule does not apply: {rule}", stacklevel=2)
    return planned.schedule.kernel


def text_of(kernel: Kernel, emit: Emit, machine: Machine, parallel: bool) -> str:
    """The kernel's LLVM IR, assembly or header."""
    emitted = emit_kernel(kernel, machine)
    if emit is Emit.header:
        return header_text(emitted.symbol, signature(kernel), (emitted.workspace, emitted.thread_workspace), parallel)
    return emitted.text if emit is Emit.llvm else jit.assembly(emitted.text, of_machine(machine))


def write(kernel: Kernel, path: Path, emit: Emit, machine: Machine, parallel: bool) -> list[Path]:
    """The files written; RuntimeFailure when the disk refuses."""
    if emit is not Emit.header:
        written = export(kernel, path, emit.value, machine=machine, parallel=parallel)
        return [written.code, written.header]
    try:
        path.write_text(text_of(kernel, emit, machine, parallel))
    except OSError as error:
        raise RuntimeFailure(f"cannot write {path}: {error.strerror}") from error
    return [path]


def _build_network(
    model: Path, emit: Emit, folder: Path, machine: Machine, threads: int | None, dims: dict[str, int], parallel: bool
) -> None:
    from tilewright.cli.networks import compile_network

    network, _ = compile_network(model, machine, threads=threads, dims=dims)
    kernels = distinct_kernels(network)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with progress("writing") as report:
            for number, (kernel, name) in enumerate(kernels.items(), 1):
                write(kernel.with_(name=name), folder / (name + _SUFFIX[emit]), emit, machine, parallel)
                report(number, len(kernels), name)
        (folder / "plan.json").write_text(json.dumps(plan_of(network, kernels), indent=1) + "\n")
    except OSError as error:
        raise RuntimeFailure(f"cannot write to {folder}: {error.strerror}", hint="name a writable directory with -o") from error
    out = table("directory", "kernels", "calls", "arena", numbers=("kernels", "calls", "arena"))
    out.add_row(str(folder), str(len(kernels)), str(len(network.steps)), bytes_text(network.memory.size))
    stdout().print(out)


def distinct_kernels(network: Network) -> dict[Kernel, str]:
    """The network's scheduled kernels with names that differ, in order of first use."""
    names: dict[Kernel, str] = {}
    for made in network.compiled:
        kernel = made.module.kernel
        names.setdefault(kernel, f"{kernel.name}_{len(names)}")
    return names


def plan_of(network: Network, kernels: dict[Kernel, str]) -> dict[str, object]:
    """Calls in order with their arguments, and the arena: what a program needs to run the objects."""
    graph = network.graph
    return {
        "inputs": {v.name: v.buffer.name for v in graph.inputs},
        "outputs": {v.name: v.buffer.name for v in graph.outputs},
        "arena_bytes": network.memory.size,
        "offsets": dict(network.memory.offsets),
        "constants": sorted(graph.constants),
        "views": {name: graph.storage(name) for name in graph.views},
        "calls": [
            {"kernel": kernels[made.module.kernel], "arguments": list(step.call.arguments)}
            for step, made in zip(network.steps, network.compiled, strict=True)
        ],
    }
