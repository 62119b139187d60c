"""One program at each level of its lowering, as text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tilewright.cli.programs import kernel_of
from tilewright.codegen.commands import has_words
from tilewright.hw import Machine
from tilewright.hw.memory import SCRATCHPAD
from tilewright.ir.stmt import Call, Kernel, allocated
from tilewright.ir.stmt import walk as statements
from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.trace import Trace
from tilewright.util.errors import CodegenError, RuntimeFailure, ScheduleError

if TYPE_CHECKING:
    from tilewright.codegen.commands.program import Program


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
BLOCK_LEVELS = (Level.block, Level.block_mlir, Level.block_irdl)
#: What begins a comment in the text of a level (others: ``#``).
_COMMENTS = {**dict.fromkeys((Level.c, Level.mlir, Level.linalg, Level.block_mlir, Level.block_irdl, Level.irdl), "//"), Level.llvm: ";"}


def comment(emit: Level, text: str) -> str:
    """``text`` as a line that readers of the level skip."""
    return f"{_COMMENTS.get(emit, '#')} {text}\n"


def text_of_file(path: Path) -> str:
    """What the file says. RuntimeFailure when it cannot be read or holds something else than text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuntimeFailure(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RuntimeFailure(f"{path} is not a text file", hint="name a printed kernel, or the JSON of a trace") from error


def _uses_accelerator(kernel: Kernel, machine: Machine) -> bool:
    """Whether a scheduled kernel calls an instruction or holds anything in a memory that programs fill."""
    filled = {m.name for m in machine.memories if m.kind == SCRATCHPAD}
    return any(b.memory in filled for b in allocated(kernel)) or any(isinstance(s, Call) for s in statements(kernel.body))


@dataclass(frozen=True, slots=True)
class Lowering:
    """One program on its way to ``machine``; the layouts of the arguments in ``constants`` are free to choose."""

    program: Kernel | Schedule
    machine: Machine
    trace: Path | None = None
    as_written: bool = False
    threads: int | None = None
    constants: frozenset[str] = frozenset()

    def text(self, emit: Level) -> str:
        match emit:
            case Level.loops:
                return f"{self.written}\n"
            case Level.scheduled:
                return self._scheduled_text()
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

        threads = self.threads or default_threads()
        return default_schedule(self.written, self.machine, threads=threads, constants=self.constants).kernel

    def _replayed(self, trace: Path) -> Kernel:
        if isinstance(self.program, Schedule) or self.as_written:
            raise ScheduleError("a trace is applied to a kernel as written", hint="name the kernel, and leave out --as-written")
        return replay(self.written, Trace.from_json(text_of_file(trace)), self.machine).kernel

    @property
    def driven_by_words(self) -> bool:
        """Whether the program becomes words (as written, it is one for the host alone)."""
        return has_words(self.machine) and not self.as_written

    @property
    def commands(self) -> Program:
        from tilewright.codegen.commands import Command, generate, walk

        if not has_words(self.machine):
            hint = "try --machine gemmini, or --emit llvm, asm or c for this one"
            raise CodegenError(f"{self.machine.name} declares no instruction words: there is no such level", hint=hint)
        program = generate(self.scheduled, self.machine)
        if not any(isinstance(i, Command) for i in walk(program.body)):
            self._note_idle()
        return program

    def _scheduled_text(self) -> str:
        kernel = self.scheduled
        default = self.trace is None and not isinstance(self.program, Schedule)
        if default and self.driven_by_words and not _uses_accelerator(kernel, self.machine):
            self._note_idle()
        return f"{kernel}\n"

    def _note_idle(self) -> None:
        """Say, beside the program, why there is nothing in it but work of the host."""
        from tilewright.space.unsuited import unsuited

        kernel = self.written
        typer.echo(f"note: the host of {self.machine.name} does all of {kernel.name}: {unsuited(kernel, self.machine)}", err=True)

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
