"""``tilewright opt``: a program at each level of its lowering."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.options import MachineName, Shape, Threads, machine_named
from tilewright.cli.programs import extents_of, kernel_of, load_definition, load_program
from tilewright.hw import Machine, RoCC, Steps
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import parse_dtype
from tilewright.lang import parse
from tilewright.mapping.operators import FLOAT, Types
from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import CodegenError, LanguageError, RuntimeFailure, ScheduleError

if TYPE_CHECKING:
    from tilewright.codegen.commands.program import Program
    from tilewright.lang.block.ir import Function
    from tilewright.runtime.launch import JitFunction


class Level(StrEnum):
    """What to print."""

    block = "block"
    block_mlir = "block-mlir"
    block_irdl = "block-irdl"
    loops = "loops"
    scheduled = "scheduled"
    instgem = "instgem"
    llvm = "llvm"
    asm = "asm"
    c = "c"
    mlir = "mlir"
    linalg = "linalg"
    irdl = "irdl"


#: Architectures whose machine code the LLVM backend writes.
_CPUS = ("x86_64", "aarch64")
_BLOCK_LEVELS = (Level.block, Level.block_mlir, Level.block_irdl)


def opt(
    program: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:NAME|FILE.txt|OPERATOR", help="A kernel, schedule or block program; a printed kernel; or an operator."
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
) -> None:
    """Print a program at each level of its lowering, down to instruction words, C or MLIR.

    block, block-mlir: a block program as it was read (block-irdl declares its dialect). loops: the kernel as written. scheduled:
    after the default schedule or a trace. instgem: the instruction words of an accelerator, in the loops of its host. llvm, asm, c:
    code for the machine. mlir: the kernel in scf and memref, or the words of an accelerator in its own dialect, which irdl
    declares. linalg: contractions as linalg.generic.

    [bold]Examples[/]

      tilewright opt matmul --shape i=64,j=64,k=64 --emit asm

      tilewright opt matmul --types i8,i8,i32 --machine gemmini --emit instgem

      tilewright opt kernels.py:gemm --emit c --as-written

      tilewright opt vectors.py:add --arg x=f32[256] --arg y=f32[256] --arg out=f32[256] --arg n=256 --arg BLOCK=64 --grid 4 --emit block
    """
    device = machine_named(machine)
    if emit is Level.irdl:
        from tilewright.codegen.mlir import emit_irdl

        typer.echo(emit_irdl(device), nl=False)
        return
    written = _loaded(program, shape, types, arg, grid, emit)
    typer.echo(written if isinstance(written, str) else _Lowering(written, device, trace, as_written, threads).text(emit), nl=False)


def _loaded(program: str, shape: str, types: str, arguments: list[str], grid: str, emit: Level) -> Kernel | Schedule | str:
    """The program; for the block level its text."""
    if program.endswith(".onnx"):
        hint = f"tilewright build {program} -o DIR writes all of them; name a kernel or an operator here"
        raise LanguageError(f"{program} is a network: it becomes many kernels", hint=hint)
    if program.endswith(".txt"):
        loaded: Kernel | Schedule = parse(_text(Path(program)))
    elif arguments:
        function, values, extents = _launch(program, arguments, grid)
        if emit in _BLOCK_LEVELS:
            return _block_text(function.block_ir(extents, **values), emit)
        return function.kernel(extents, **values)
    else:
        loaded = load_program(program, extents_of(shape), _types(types))
    if emit in _BLOCK_LEVELS:
        raise LanguageError(
            f"{program} is no launch of a block program", hint="name a @tilewright.jit function and give its --arg and --grid"
        )
    return loaded


def _text(path: Path) -> str:
    """What the file says. RuntimeFailure when it cannot be read or holds something else than text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuntimeFailure(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RuntimeFailure(f"{path} is not a text file", hint="name a printed kernel, or the JSON of a trace") from error


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
    from tilewright.runtime.launch import Autotuner, JitFunction

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


@dataclass(frozen=True, slots=True)
class _Lowering:
    """One program on its way to ``machine``."""

    program: Kernel | Schedule
    machine: Machine
    trace: Path | None
    as_written: bool
    threads: int | None

    def text(self, emit: Level) -> str:
        match emit:
            case Level.loops:
                return f"{self.written}\n"
            case Level.scheduled:
                return f"{self.scheduled}\n"
            case Level.instgem:
                return f"{self.commands}\n"
            case Level.mlir:
                return self._mlir()
            case Level.linalg:
                from tilewright.codegen.mlir import emit_mlir

                return emit_mlir(self.written, linalg=True)
            case Level.c:
                return self._c()
        return self._code(emit)

    @property
    def written(self) -> Kernel:
        """The kernel before it is scheduled (a Schedule in the file: as its author left it)."""
        return kernel_of(self.program)

    @property
    def scheduled(self) -> Kernel:
        if self.trace is not None:
            return self._replayed(self.trace)
        if self.as_written or isinstance(self.program, Schedule):
            return self.written
        from tilewright.runtime.pool import default_threads
        from tilewright.space.default import default_schedule

        return default_schedule(self.written, self.machine, threads=self.threads or default_threads()).kernel

    def _replayed(self, trace: Path) -> Kernel:
        if isinstance(self.program, Schedule) or self.as_written:
            raise ScheduleError("a trace is applied to a kernel as written", hint="name the kernel, and leave out --as-written")
        return replay(self.written, Trace.from_json(_text(trace)), self.machine).kernel

    @property
    def has_words(self) -> bool:
        """Whether the machine is an accelerator whose host issues instruction words."""
        return any(isinstance(i.emit, RoCC | Steps) for i in self.machine.all_instructions)

    @property
    def driven_by_words(self) -> bool:
        """Whether the program becomes words (as written, it is one for the host alone)."""
        return self.has_words and not self.as_written

    @property
    def commands(self) -> Program:
        from tilewright.codegen.commands import generate

        if not self.has_words:
            hint = "try --machine gemmini, or --emit llvm, asm or c for this one"
            raise CodegenError(f"{self.machine.name} declares no instruction words: there is no such level", hint=hint)
        return generate(self.scheduled, self.machine)

    def _c(self) -> str:
        from tilewright.codegen.c import emit_c, emit_commands

        return emit_commands(self.commands, self.machine) if self.driven_by_words else emit_c(self.scheduled)

    def _mlir(self) -> str:
        from tilewright.codegen.mlir import emit_command_mlir, emit_mlir

        return emit_command_mlir(self.commands, self.machine) if self.driven_by_words else emit_mlir(self.scheduled)

    def _code(self, emit: Level) -> str:
        """LLVM IR or assembly; of a RISC-V host through its C, whose inline assembly LLVM's own text cannot hold."""
        from tilewright.cli.build import Emit, text_of

        target = self.machine.target
        architecture = target.triple.split("-")[0]
        if architecture == "riscv64":
            from tilewright.sim.riscv import listing

            return listing(self._c(), target, llvm=emit is Level.llvm)
        if architecture not in _CPUS:
            raise CodegenError(f"{self.machine.name} is no processor that LLVM generates code for here", hint="try --emit c or mlir")
        return text_of(self.scheduled, Emit(emit.value), self.machine, parallel=True)
