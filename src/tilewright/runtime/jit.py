"""LLVM IR text to object code, and object code to callable addresses in this process."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from tilewright.runtime.target import Target, host, initialize
from tilewright.util.errors import RuntimeFailure


def assemble(text: str, target: Target | None = None, level: int = 3) -> bytes:
    """Optimized object code of an LLVM IR module; CodegenError, with LLVM's message, for invalid text."""
    from tilewright.codegen.llvm.compile import compile_ir

    initialize()
    return bytes(cast(bytes, compile_ir(text, target or host(), level, "obj")))


def assembly(text: str, target: Target | None = None, level: int = 3) -> str:
    """Optimized assembly of an LLVM IR module, as :func:`assemble` encodes it."""
    from tilewright.codegen.llvm.compile import compile_ir

    initialize()
    return cast(str, compile_ir(text, target or host(), level, "asm"))


def link_text(texts: Sequence[str], target: Target, keep: Sequence[str]) -> str:
    """One module of several: definitions outside ``keep`` become internal to it."""
    machine = target.machine()
    first, *others = (_parse(text, target, machine) for text in texts)
    for module in others:
        first.link_in(module)
    for function in first.functions:
        if not function.is_declaration and function.name not in keep:
            function.linkage = "internal"
    return str(first)


def _parse(text: str, target: Target, machine: Any) -> Any:
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    return module


class Library:
    """Object code loaded into this process; its addresses are valid as long as it is referenced."""

    __slots__ = ("_tracker", "name")

    def __init__(self, name: str, tracker: Any):
        self.name = name
        self._tracker = tracker

    def address(self, symbol: str) -> int:
        """Address of an exported symbol (one of those given to :func:`load`)."""
        return int(self._tracker[symbol])

    def function(self, symbol: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A ctypes function at ``symbol``. Calls release the interpreter lock.

        The caller keeps this Library alive as long as it uses the function.
        """
        return ctypes.CFUNCTYPE(result, *arguments)(self.address(symbol))


@cache
def _linker() -> Any:
    """The process-wide ORC instance that owns loaded code (never closed before the process ends)."""
    import llvmlite.binding as llvm

    initialize()
    # JITLink lays out code and constants side by side, within reach of 32-bit relocations whatever the process has mapped.
    return llvm.create_lljit_compiler(host().machine(), use_jit_link=True, suppress_errors=True)


_serial = itertools.count()


def load(code: bytes, exports: Sequence[str], imports: Mapping[str, int] | None = None) -> Library:
    """Link object code into this process.

    ``imports`` gives addresses of symbols that live in other libraries; what is left is looked up
    in the process (libc, libm). Raises RuntimeFailure when a symbol is missing or the object is
    damaged.
    """
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder()
    builder.add_object_img(code)
    builder.add_current_process()
    for name, address in (imports or {}).items():
        builder.import_symbol(name, address)
    for name in exports:
        builder.export_symbol(name)
    library = f"tilewright.{next(_serial)}"
    try:
        return Library(library, builder.link(_linker(), library))
    except RuntimeError as error:
        raise RuntimeFailure(
            f"cannot load object code with {', '.join(exports)}: {str(error).strip()}", hint="clear the build cache if it persists"
        ) from error
