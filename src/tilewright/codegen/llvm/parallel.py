"""Parallel loops: the body becomes a function that the thread pool runs on ranges of iterations."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.llvm import storage
from tilewright.codegen.llvm.control import counted_loop
from tilewright.codegen.llvm.expression import poly
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.writer import Writer
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Alloc, Call, For, Store, own_exprs, walk

RUNNER = "tw_parallel_for"


def emit_loop(f: Frame, s: For, body: Callable[[Frame], None]) -> None:
    """Run ``s`` on the pool; ``body`` writes its body in the frame of the outlined function.

    Everything the body names is passed through a struct of 8-byte slots in the caller's frame:
    pointers of buffers, then loop variables and sizes, then the workspace.
    """
    count = _trip_count(f, s)
    if count.is_const and count.const <= 0:
        return
    buffers, variables = _captured(f, s)
    values = [("ptr", f.storages[b].ref) for b in buffers]
    values += [("i64", f.w.scalar_index(f.env[v])) for v in variables]
    values.append(("ptr", f.workspace))
    w = f.w
    ctx = w.alloca("i64", len(values), 8)
    for n, (kind, ref) in enumerate(values):
        slot = w.pure(f"getelementptr inbounds i64, ptr {ctx}, i64 {n}")
        w.line(f"store {kind} {ref}, ptr {slot}, align 8")
    name = f"{f.module.symbol}_{s.name}_{f.module.number()}"
    f.module.declares[RUNNER] = f"declare void @{RUNNER}(ptr, ptr, ptr, i64)"
    w.line(f"call void @{RUNNER}(ptr {f.pool}, ptr @{name}, ptr {ctx}, i64 {w.scalar_index(count)})")
    _outline(f, s, name, buffers, variables, count, body)


def _trip_count(f: Frame, s: For) -> Poly:
    from tilewright.codegen.llvm.access import floordiv

    span = poly(f, s.hi) - poly(f, s.lo)
    return span if s.step == 1 else floordiv(f, span + Poly(s.step - 1), s.step)


def _captured(f: Frame, s: For) -> tuple[list[str], list[str]]:
    """Buffers and variables of the caller that the loop names."""
    buffers: dict[str, None] = {}
    names: dict[str, None] = {}

    def shape_of(name: str) -> None:
        for e in f.storages[name].buffer.shape:
            names.update(dict.fromkeys(ex.free_vars(e)))

    for t in walk(s):
        for e in own_exprs(t):
            names.update(dict.fromkeys(sorted(ex.free_vars(e))))
            buffers.update(dict.fromkeys(ld.buffer.name for ld in ex.loads(e)))
        if isinstance(t, Store):
            buffers[t.buffer.name] = None
        elif isinstance(t, Call):
            buffers.update(dict.fromkeys(w.buffer.name for w in t.args))
        elif isinstance(t, Alloc):
            for e in t.buffer.shape:
                names.update(dict.fromkeys(sorted(ex.free_vars(e))))
    known = [b for b in buffers if b in f.storages]
    for b in known:
        shape_of(b)
    return known, [v for v in names if v in f.env]


def _outline(f: Frame, s: For, name: str, buffers: list[str], variables: list[str], count: Poly, body: Callable[[Frame], None]) -> None:
    """The function the pool calls, and behind it one whose arguments say that buffers do not overlap."""
    slots = [("ptr", f"%b{n}") for n in range(len(buffers))] + [("i64", f"%x{n}") for n in range(len(variables))] + [("ptr", "%workspace")]
    lines = [f"define internal void @{name}(ptr %ctx, i64 %begin, i64 %end, i64 %thread) nounwind {{"]
    for n, (kind, ref) in enumerate(slots):
        lines.append(f"  %slot{n} = getelementptr inbounds i64, ptr %ctx, i64 {n}")
        lines.append(f"  {ref} = load {kind}, ptr %slot{n}, align 8")
    operands = ", ".join(f"{kind} {ref}" for kind, ref in slots)
    lines.append(f"  call void @{name}_body({operands}, i64 %begin, i64 %end, i64 %thread)\n  ret void\n}}\n")
    f.module.functions.append("\n".join(lines))

    inner = Frame(f.module, Writer(f.module.definitions), {}, {}, thread="%thread")
    for n, v in enumerate(variables):
        p = f.env[v]
        inner.env[v] = p if p.is_const else inner.atom(f"%x{n}", *p.range())
    params = []
    for n, b in enumerate(buffers):
        old = f.storages[b]
        storage.adopt(inner, old.buffer, f"%b{n}", old.align, 0, old.room, old.extents[-1] if old.room and old.extents else None)
        params.append(f"ptr noalias nonnull noundef align {old.align} %b{n}")
    params += [f"i64 noundef %x{n}" for n in range(len(variables))]
    params += ["ptr noalias %workspace", "i64 noundef %begin", "i64 noundef %end", "i64 noundef %thread"]
    most = count.range()[1]
    begin, end = inner.atom("%begin", 0, most), inner.atom("%end", 0, most)
    step = "%turn " + s.name

    def one() -> None:
        with inner.bound(s.name, poly(inner, s.lo) + inner.env[step].scaled(s.step)):
            body(inner)

    counted_loop(inner, step, begin, end, 1, one, scheduled=True)
    head = f"define internal void @{name}_body({', '.join(params)}) noinline nounwind {{\nentry:\n"
    f.module.functions.append(head + "\n".join([*inner.w.allocas, *inner.w.lines]) + "\n  ret void\n}\n")
