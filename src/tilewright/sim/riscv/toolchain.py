"""C to a bare-metal RV64 executable, by the C compiler of the ``ziglang`` wheel: no cross compiler has to be installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

from tilewright.hw.machine import Target
from tilewright.util.errors import CodegenError, RuntimeFailure

#: rv64gc: what the field's simulators run by default.
GENERIC = Target("riscv64-unknown-elf", "generic-rv64", ("m", "a", "f", "d", "c"))


#: Every float is rounded after each operation, and nothing is taken for a library function.
FLAGS = ("-std=c11", "-ffreestanding", "-fno-builtin", "-ffp-contract=off", "-fno-sanitize=all", "-mcmodel=medany")


def compile_program(sources: Mapping[str, str], target: Target = GENERIC, *, options: tuple[str, ...] = ("-O2",)) -> bytes:
    """The ELF file of C files given as name -> text, linked with the start-up code and the host interface (htif.h).

    The program has an ``int main(void)``; what it returns is the exit code. There is no mathematical library on the bare core.
    RuntimeFailure when ziglang is not installed; CodegenError with the compiler's message when it refuses the program.
    """
    with as_file(files(__package__) / "support") as support:
        layout = ("-nostdlib", "-static", f"-Wl,-T,{support / 'link.ld'}")
        return _compiled(sources, target, (*layout, *options, str(support / "start.S"), str(support / "htif.c")))


def listing(text: str, target: Target = GENERIC, *, llvm: bool = False, options: tuple[str, ...] = ("-O2",)) -> str:
    """Assembly of a C file for ``target``, or its LLVM IR. Errors are those of :func:`compile_program`."""
    return _compiled({"program.c": text}, target, ("-S", *(("-emit-llvm",) if llvm else ()), "-g0", *options)).decode()


def _compiled(sources: Mapping[str, str], target: Target, arguments: tuple[str, ...]) -> bytes:
    if importlib.util.find_spec("ziglang") is None:
        raise RuntimeFailure("no C compiler for RISC-V: the package ziglang is not installed", hint="pip install 'tilewright[riscv]'")
    cpu = target.cpu.replace("-", "_") + "".join(f"+{f}" for f in target.features)
    with tempfile.TemporaryDirectory() as folder, as_file(files(__package__) / "support") as support:
        for name, text in sources.items():
            (Path(folder) / name).write_text(text)
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "riscv64-freestanding-none", f"-mcpu={cpu}", f"-I{support}", *FLAGS]
        done = subprocess.run(
            [*command, *arguments, *sources, "-o", "result"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "ZIG_LOCAL_CACHE_DIR": folder},
        )
        if done.returncode:
            missing = "undefined symbol" in done.stderr
            hint = "the bare core has no C library beyond htif.h and string functions" if missing else None
            raise CodegenError(f"the RISC-V C compiler refuses the program:\n{done.stderr.strip()[-4000:]}", hint=hint)
        return (Path(folder) / "result").read_bytes()
