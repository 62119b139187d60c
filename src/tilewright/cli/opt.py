"""``tilewright opt``: a program at each level of its lowering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.lowering import BLOCK_LEVELS, Level, Lowering, comment, text_of_file
from tilewright.cli.options import Dims, MachineName, Shape, Threads, integers, machine_named
from tilewright.cli.programs import extents_of, kernel_of, load_definition, load_program
from tilewright.codegen.commands import has_words
from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import i8, parse_dtype
from tilewright.lang import parse
from tilewright.mapping.operators import FLOAT, Types
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import LanguageError, ScheduleError, TilewrightError

if TYPE_CHECKING:
    from onnx import ModelProto

    from tilewright.lang.block.ir import Function
    from tilewright.runtime.launch import JitFunction


def opt(
    program: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME|FILE.txt|OPERATOR|MODEL.onnx",
            help="A kernel, schedule or block program; a printed kernel; an operator; or the kernels of a network.",
        ),
    ],
    emit: Annotated[Level, typer.Option(help="The level.")] = Level.scheduled,
    machine: MachineName = "host",
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Apply this trace (JSON) instead of the default schedule.", show_default=False)
    ] = None,
    as_written: Annotated[bool, typer.Option("--as-written", help="Do not schedule the kernel.")] = False,
    threads: Threads = None,
    shape: Shape = "",
    types: Annotated[str, typer.Option(metavar="A,B,OUT", help="Element types of an operator, e.g. i8,i8,i32.", show_default=False)] = "",
    arg: Annotated[
        list[str],
        typer.Option(
            "--arg", metavar="NAME=VALUE", help="An argument of a block program: x=f32[64,64], n=64, BM=16; repeat.", show_default=False
        ),
    ] = [],  # noqa: B006 (typer copies it)
    grid: Annotated[str, typer.Option(metavar="N,N,N", help="The grid of a block program.")] = "1",
    kernel: Annotated[
        int | None, typer.Option("--kernel", metavar="N", min=1, help="Only the N-th of several kernels.", show_default=False)
    ] = None,
    dims: Dims = [],  # noqa: B006 (typer copies it)
) -> None:
    """Print a program at each level of its lowering, down to instruction words, C or MLIR.

    block, block-mlir: a block program as it was read (block-irdl declares its dialect). loops: the kernel as written. scheduled:
    after the default schedule or a trace. instgem: the instruction words of an accelerator, in the loops of its host. llvm, asm, c:
    code for the machine. mlir: the kernel in scf and memref, or the words of an accelerator in its own dialect, which irdl
    declares. linalg: contractions as linalg.generic.

    A network has several kernels, and so has a kernel of several contractions below the level loops of an accelerator. Each is
    printed after a comment with its number.

    [bold]Examples[/]

      tilewright opt matmul --shape i=64,j=64,k=64 --emit asm

      tilewright opt matmul --types i8,i8,i32 --machine gemmini --emit instgem

      tilewright opt kernels.py:gemm --emit c --as-written

      tilewright opt model.onnx --emit linalg --kernel 3

      tilewright opt vectors.py:add --arg x=f32[256] --arg y=f32[256] --arg out=f32[256] --arg n=256 --arg BLOCK=64 --grid 4 --emit block
    """
    device = machine_named(machine)
    if emit is Level.irdl:
        from tilewright.codegen.mlir import emit_irdl

        typer.echo(emit_irdl(device), nl=False)
        return
    if program.endswith(".onnx"):
        found = _network(Path(program), device, integers(dims, "--dim"), emit)
    else:
        written = _loaded(program, shape, types, arg, grid, emit)
        if isinstance(written, str):
            typer.echo(written, nl=False)
            return
        found = [_Part(written)]
    if trace is None and not as_written:
        found = [p for f in found for p in _separated(f, device, emit)]
    if kernel is not None:
        found = [_chosen(found, kernel)]
    if trace is not None and len(found) > 1:
        raise ScheduleError("a trace is of one kernel", hint=f"name it: --kernel 1 to {len(found)}")
    lowered = [Lowering(p.program, device, trace, as_written, threads, p.constants) for p in found]
    for text in [lowered[0].text(emit)] if len(found) == 1 else _texts(found, lowered, emit):
        typer.echo(text, nl=False)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the kernels to print; ``operators`` are those of the network it computes, in ``calls`` calls."""

    program: Kernel | Schedule
    constants: frozenset[str] = frozenset()
    operators: str = ""
    calls: int = 1

    @property
    def name(self) -> str:
        operators = f" ({self.operators})" if self.operators else ""
        return kernel_of(self.program).name + operators + (f" x {self.calls}" if self.calls > 1 else "")


def _network(model: Path, machine: Machine, dims: dict[str, int], emit: Level) -> list[_Part]:
    """The distinct kernels of a network, in order; what an accelerator does is not fused with work of its host, and quantised operators
    are those on integers where it moves such."""
    if emit in BLOCK_LEVELS:
        raise _no_launch(str(model))
    from tilewright.graph import Network, load
    from tilewright.graph.layout import choose_layouts, moved_types

    graph = load(_on_integers(model) if i8 in moved_types(machine) else model, dims=dims)
    if has_words(machine):
        network = Network.interpreted(choose_layouts(graph, machine), fusion="none")
    else:
        network = Network.interpreted(graph)
    found: dict[tuple[Kernel, frozenset[str]], _Part] = {}
    for step in network.steps:
        call = step.call
        pairs = zip(call.kernel.args, call.arguments, strict=True)
        constants = frozenset(b.name for b, a in pairs if network.graph.storage(a) in network.graph.constants)
        known = found.get((call.kernel, constants), _Part(call.kernel, constants, "+".join(step.operators), 0))
        found[call.kernel, constants] = replace(known, calls=known.calls + 1)
    return list(found.values())


def _on_integers(model: Path) -> Path | ModelProto:
    """The integer form of a quantised model; the model itself where nothing would change, or its weights lie in other files."""
    from onnx import TensorProto

    from tilewright.graph.integers import integer_form

    made = integer_form(model)
    products = any(n.op_type.startswith("QLinear") or n.op_type == "QGemm" for n in made.graph.node)
    elsewhere = any(t.data_location == TensorProto.EXTERNAL for t in made.graph.initializer)
    return made if products and not elsewhere else model


def _separated(part: _Part, machine: Machine, emit: Level) -> list[_Part]:
    """An accelerator does the contractions of a kernel one after the other, vectors as matrices of one row.

    ``part`` itself where there is one contraction of matrices at most.
    """
    from tilewright.space.separate import contractions
    from tilewright.space.single_rows import single_rows

    if emit in (Level.loops, Level.linalg) or not has_words(machine) or isinstance(part.program, Schedule):
        return [part]
    if len(contractions(part.program)) < 2:
        return [replace(part, program=single_rows(part.program))]
    from tilewright.runtime.accelerated import Accelerated

    return [replace(part, program=k) for k in Accelerated(part.program, machine).kernels]


def _chosen(found: list[_Part], number: int) -> _Part:
    if number > len(found):
        raise LanguageError(f"there is no kernel {number}", hint=f"there are {len(found)}: {', '.join(p.name for p in found[:8])}")
    return found[number - 1]


def _texts(found: list[_Part], lowered: list[Lowering], emit: Level) -> Iterator[str]:
    """Each kernel after a comment that names it; one that does not reach the level has the reason in its place.

    The reason is an error where no kernel reaches the level.
    """
    reached = False
    for number, (part, lowering) in enumerate(zip(found, lowered, strict=True), 1):
        yield comment(emit, f"kernel {number} of {len(found)}: {part.name}")
        try:
            yield lowering.text(emit)
            reached = True
        except TilewrightError as error:
            if number == len(found) and not reached:
                raise
            yield comment(emit, f"not at the level {emit.value}: {' '.join(error.message.split())}")


def _no_launch(program: str) -> LanguageError:
    return LanguageError(f"{program} is no launch of a block program", hint="name a @tilewright.jit function and give its --arg and --grid")


def _loaded(program: str, shape: str, types: str, arguments: list[str], grid: str, emit: Level) -> Kernel | Schedule | str:
    """The program; for the block level its text."""
    if program.endswith(".txt"):
        loaded: Kernel | Schedule = parse(text_of_file(Path(program)))
    elif arguments:
        function, values, extents = _launch(program, arguments, grid)
        if emit in BLOCK_LEVELS:
            return _block_text(function.block_ir(extents, **values), emit)
        return function.kernel(extents, **values)
    else:
        loaded = load_program(program, extents_of(shape), _types(types))
    if emit in BLOCK_LEVELS:
        raise _no_launch(program)
    return loaded


def _block_text(function: Function, emit: Level) -> str:
    from tilewright.codegen.mlir import emit_block_irdl, emit_block_mlir

    match emit:
        case Level.block_mlir:
            return emit_block_mlir(function)
        case Level.block_irdl:
            return emit_block_irdl(function)
    return f"{function}\n"


def _launch(program: str, arguments: list[str], grid: str) -> tuple[JitFunction, dict[str, object], tuple[int, ...]]:
    from tilewright.cli.block_programs import grid_of, launch_arguments, plain_function
    from tilewright.runtime.configurations import Autotuner
    from tilewright.runtime.launch import JitFunction

    path, _, name = program.partition(".py:")
    file = Path(path + ".py" if name else program)
    found = load_definition(file, name, (JitFunction, Autotuner))
    return plain_function(found), launch_arguments(arguments), grid_of(grid)


def _types(text: str) -> Types:
    if not text:
        return FLOAT
    parts = [parse_dtype(t.strip()) for t in text.split(",")]
    if len(parts) != 3:
        raise typer.BadParameter(f"{text!r} names {len(parts)} types, not those of A, B and the result", param_hint="--types")
    return parts[0], parts[1], parts[2]
