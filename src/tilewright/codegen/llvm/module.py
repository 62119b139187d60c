"""From a scheduled kernel to an LLVM IR module with one entry point.

ABI: ``void symbol(ptr args, ptr sizes, ptr workspace, ptr pool)``. ``args`` points to one data pointer per
kernel argument, ``sizes`` to one i64 per size parameter; ``workspace`` is 64-byte aligned and holds
``Emitted.workspace + threads * Emitted.thread_workspace`` bytes; ``pool`` is what ``tw_parallel_for`` takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from tilewright.codegen import interior
from tilewright.codegen.inline import inline_calls
from tilewright.codegen.llvm import statement, storage
from tilewright.codegen.llvm.control import LOOP_ATTRIBUTES, SCHEDULED
from tilewright.codegen.llvm.frame import Frame, Module
from tilewright.codegen.llvm.instruction import declared
from tilewright.codegen.llvm.symbols import kernel_symbol
from tilewright.codegen.llvm.workspace import plan
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const
from tilewright.ir.stmt import For, Kernel, LoopKind, Stmt, map_stmts
from tilewright.util.errors import CodegenError


@dataclass(frozen=True, slots=True)
class Emitted:
    """LLVM IR of one kernel.

    ``workspace`` bytes are shared, ``thread_workspace`` bytes are needed for each thread;
    ``externals`` are the symbols that must be resolved when the object is loaded.
    """

    text: str
    symbol: str
    workspace: int
    thread_workspace: int
    externals: tuple[str, ...]


def emit(kernel: Kernel, machine: Any, *, symbol: str | None = None) -> Emitted:
    """LLVM IR of ``kernel`` for ``machine`` (its ``vector_bits``, register memories and instructions).

    Loop kinds are obeyed: UNROLL loops are written out, VECTOR loops become vector values, PARALLEL
    loops (and BIND loops of the machine's outermost unit) run on the pool. Arguments must not
    overlap. CodegenError names what cannot be compiled.
    """
    name = symbol or kernel_symbol(kernel.name)
    if not re.fullmatch(r"[A-Za-z_.$][\w.$]*", name):
        raise CodegenError(f"symbol {name!r} is not a C identifier", hint="pass symbol=")
    kernel = interior.divided(_bound(inline_calls(kernel, lambda c: declared(machine, c) is not None), machine))
    module = Module(kernel, machine, name, plan(kernel, lambda b: _is_register(machine, b)))
    main = _main(module, kernel)
    entry = _entry(module, kernel)
    parts = [
        f'source_filename = "{name}"\n',
        *(d + "\n" for d in module.declares.values()),
        *module.definitions.values(),
        *module.functions,
        main,
        entry,
        *(m + "\n" for m in (*LOOP_ATTRIBUTES, *module.metadata)),
        "" if module.has_plain_loops else f"{SCHEDULED} = !{{}}\n",
    ]
    externals = tuple(s for s in module.declares if "llvm." not in s)
    return Emitted("\n".join(parts), name, module.plan.shared, module.plan.thread, externals)


def _bound(kernel: Kernel, machine: Any) -> Kernel:
    """BIND loops as what a thread pool makes of them: the outermost unit's run in parallel, others in order."""
    outermost = {u.name for u in getattr(machine, "units", ()) if u.parent is None}

    def loop(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or s.kind is not LoopKind.BIND:
            return None
        return replace(s, kind=LoopKind.PARALLEL if s.unit in outermost else LoopKind.SERIAL, unit=None)

    body = map_stmts(kernel.body, loop)
    return kernel if body is kernel.body else kernel.with_(body=body)


def _is_register(machine: Any, b: Buffer) -> bool:
    """Whether the machine keeps the buffer's memory in registers (memories it does not know are ordinary)."""
    return any(m.name == b.memory and m.kind == "register" for m in machine.memories)


def _main(module: Module, kernel: Kernel) -> str:
    """The function that does the work, with arguments that say what is known about them."""
    f = Frame(module, Writer(module.definitions), {}, {})
    for n, v in enumerate(kernel.sizes):
        f.env[v.name] = f.atom(f"%n{n}", 0, None)
    params = []
    for n, b in enumerate(kernel.args):
        storage.adopt(f, b, f"%a{n}", b.dtype.nbytes)
        params.append(f"ptr noalias {_facts(b)}align {b.dtype.nbytes} %a{n}")
    params += [f"i64 noundef %n{n}" for n in range(len(kernel.sizes))]
    statement.emit(f, kernel.body)
    signature = ", ".join([*params, "ptr noalias align 64 %workspace", "ptr %pool"])
    head = f"define internal void @{module.symbol}_main({signature}) noinline nounwind {{"
    return "\n".join([head, "entry:", *f.w.allocas, *f.w.lines, "  ret void", "}", ""])


def _facts(b: Buffer) -> str:
    shape = b.physical_shape()
    if all(isinstance(e, Const) for e in shape) and b.nbytes > 0:
        return f"nonnull dereferenceable({b.nbytes}) "
    return ""


def _entry(module: Module, kernel: Kernel) -> str:
    """The ABI: unpack pointers and sizes, call the function that does the work."""
    lines = [f"define void @{module.symbol}(ptr %args, ptr %sizes, ptr %workspace, ptr %pool) nounwind {{"]
    operands = []
    for n in range(len(kernel.args)):
        lines.append(f"  %pa{n} = getelementptr inbounds ptr, ptr %args, i64 {n}")
        lines.append(f"  %a{n} = load ptr, ptr %pa{n}, align 8")
        operands.append(f"ptr %a{n}")
    for n in range(len(kernel.sizes)):
        lines.append(f"  %pn{n} = getelementptr inbounds i64, ptr %sizes, i64 {n}")
        lines.append(f"  %n{n} = load i64, ptr %pn{n}, align 8")
        operands.append(f"i64 %n{n}")
    lines.append(f"  call void @{module.symbol}_main({', '.join([*operands, 'ptr %workspace', 'ptr %pool'])})")
    return "\n".join([*lines, "  ret void", "}", ""])
