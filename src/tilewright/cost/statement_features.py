"""The 194 columns of one statement as formulas; columns that are not mentioned are zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tilewright.cost.columns import BUFFERS, CLASSES, POSITIONS
from tilewright.cost.footprint import stride
from tilewright.cost.formula import Formula
from tilewright.cost.issue import issued
from tilewright.cost.program import Access, Loop, Statement, expressions
from tilewright.cost.tape import Tape
from tilewright.cost.traffic import Analysis, Use
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.stmt import LoopKind

#: Stands for knobs where buffers are put in order of size (the order must not depend on the candidate).
NOMINAL = 8
_PARALLEL = (LoopKind.PARALLEL, LoopKind.BIND)
_MARKS = {"vector": (LoopKind.VECTOR,), "unroll": (LoopKind.UNROLL,), "parallel": _PARALLEL}


def statement_columns(a: Analysis, s: Statement, machine: Machine) -> dict[str, Formula]:
    """Formulas of the columns of statement ``s`` (magnitudes before the logarithm), by column name."""
    columns: dict[str, Formula] = {}
    operations = _operations(a, s)
    columns |= operations
    for mark, kinds in _MARKS.items():
        columns |= _annotation(a, s, mark, kinds)
    columns |= _bindings(a, s)
    for n, uses in enumerate(_by_buffer(a, s)):
        columns |= {f"buffer{n}_{k}": f for k, f in _buffer(a, s, uses).items()}
    columns |= _intensity(a, s, a.graph.sum(operations.values()))
    columns |= _allocation(a, s)
    g = a.graph
    columns["outer_prod"] = a.iterations(s.loops[:-1])
    columns["num_loops"] = g.const(len(s.loops))
    columns["auto_unroll"] = g.product(x.trips for x in s.loops if x.kind is LoopKind.UNROLL)
    if (name := operator_class(a, s)) is not None:
        columns[f"class_{name}"] = g.const(1)
    return columns | _assignment(a, s, machine)


# --- operations ---------------------------------------------------------------------------------


def _operations(a: Analysis, s: Statement) -> dict[str, Formula]:
    counts: dict[str, int] = {}
    nodes = list(expressions(s.store.value))
    kinds = [k for e in nodes if (k := _operation(e)) is not None]
    if s.store.op is not None:
        kind = "float" if s.store.buffer.dtype.is_float else "int"
        product = f"{kind}_mul"
        if s.store.op == "+" and product in kinds:
            kinds[kinds.index(product)] = f"{kind}_mad"
        else:
            kinds.append(f"{kind}_addsub" if s.store.op == "+" else f"{kind}_cmp" if s.store.op in ("min", "max") else f"{kind}_other")
    for k in kinds:
        counts[k] = counts.get(k, 0) + 1
    return {k: a.iterations(s.loops) * n for k, n in counts.items()}


def _operation(e: ex.Expr) -> str | None:
    match e:
        case ex.Binary():
            kind = "float" if e.dtype.is_float else "bool" if e.dtype == ty.boolean else "int"
            if kind == "bool":
                return "bool_op"
            names = {"+": "addsub", "-": "addsub", "*": "mul", "/": "divmod", "//": "divmod", "%": "divmod", "min": "cmp", "max": "cmp"}
            return f"{kind}_{names.get(e.op, 'other')}"
        case ex.Compare():
            return "float_cmp" if e.a.dtype.is_float else "int_cmp"
        case ex.Logical() | ex.Not():
            return "bool_op"
        case ex.Where():
            return "select_op"
        case ex.Intrinsic():
            return "float_math" if e.dtype.is_float else "int_math"
        case ex.Cast() | ex.Bitcast():
            return "float_other" if e.dtype.is_float else "int_other"
    return None


# --- loops --------------------------------------------------------------------------------------


def _annotation(a: Analysis, s: Statement, mark: str, kinds: Sequence[LoopKind]) -> dict[str, Formula]:
    g = a.graph
    marked = [x for x in s.loops if x.kind in kinds]
    position = _position(s, marked)
    return {
        f"{mark}_num": g.const(len(marked)),
        f"{mark}_prod": g.product(x.trips for x in marked) if marked else g.const(0),
        f"{mark}_len": marked[-1].trips if marked else g.const(0),
        **{f"{mark}_pos_{p}": g.const(int(p == position)) for p in POSITIONS},
    }


def _position(s: Statement, marked: Sequence[Loop]) -> str:
    if not marked:
        return "none"
    summed = [x in s.reduction for x in marked]
    if any(summed) and not all(summed):
        return "mixed"
    where = "inner" if marked[-1] is s.loops[-1] else "outer" if marked[-1] is s.loops[0] else "middle"
    return f"{where}_{'reduce' if summed[0] else 'spatial'}"


def _bindings(a: Analysis, s: Statement) -> dict[str, Formula]:
    g = a.graph
    bound = [x for x in s.loops if x.kind is LoopKind.BIND]
    if not bound:
        return {}
    units = list(dict.fromkeys(x.unit for x in bound))
    out = {"bound": g.const(1)}
    for label, unit in zip(("outer", "inner"), units, strict=False):
        for n, x in enumerate([x for x in bound if x.unit == unit][:3]):
            out[f"bound_{label}_{n}"] = x.trips
    rest = [x for x in bound if x.unit in units[2:]]
    return out | {"bound_rest": g.product(x.trips for x in rest) if rest else g.const(0)}


# --- memory -------------------------------------------------------------------------------------


def _by_buffer(a: Analysis, s: Statement) -> list[list[Use]]:
    """Uses of the statement by buffer, largest first, at most five buffers."""
    uses: dict[str, list[Use]] = {}
    for u in a.of(s):
        uses.setdefault(u.access.buffer.name, []).append(u)
    sizes = [a.graph.product(us[0].access.shape) * us[0].access.itemsize for us in uses.values()]
    tape = Tape(sizes)
    nbytes = dict(zip(uses, tape(dict.fromkeys(tape.variables, NOMINAL)), strict=True))
    return [uses[n] for n in sorted(uses, key=lambda n: -nbytes[n])[:BUFFERS]]


def _buffer(a: Analysis, s: Statement, uses: Sequence[Use]) -> dict[str, Formula]:
    g, first = a.graph, uses[0]
    reads, writes = any(u.access.reads for u in uses), any(u.access.writes for u in uses)
    r = a.reuse(first)
    inner = _step_depth(s)
    nbytes = a.iterations(s.loops) * (len(uses) * first.access.itemsize)
    unique = g.largest(u.footprints[0].elements for u in uses) * first.access.itemsize
    lines = g.sum(a.iterations(s.loops[:inner]) * u.footprints[inner].lines for u in uses)
    unique_lines = g.largest(u.footprints[0].lines for u in uses)
    serial = g.negate(r.multiple) if r.serial else g.const(0)
    return {
        "read": g.const(int(reads and not writes)),
        "write": g.const(int(writes and not reads)),
        "read_write": g.const(int(reads and writes)),
        "bytes": nbytes,
        "unique_bytes": unique,
        "lines": lines,
        "unique_lines": unique_lines,
        "reuse_multiple": r.multiple,
        "reuse_serial": serial,
        "reuse_none": g.const(0) if r.serial else g.negate(r.multiple),
        "reuse_iterations": r.iterations,
        "reuse_bytes": r.nbytes,
        "reuse_count": r.count,
        "bytes_per_reuse": g.div(nbytes, r.count),
        "unique_bytes_per_reuse": g.div(unique, r.count),
        "lines_per_reuse": g.div(lines, r.count),
        "unique_lines_per_reuse": g.div(unique_lines, r.count),
        "stride": stride(g, first.access, s.loops[-1]) if s.loops else g.const(0),
    }


def _step_depth(s: Statement) -> int:
    """How many loops are outside the innermost vector and unrolled ones."""
    n = len(s.loops)
    while n and s.loops[n - 1].kind in (LoopKind.VECTOR, LoopKind.UNROLL):
        n -= 1
    return n


def _intensity(a: Analysis, s: Statement, operations: Formula) -> dict[str, Formula]:
    """Operations per byte touched at ten depths, between loops by linear interpolation."""
    g, uses = a.graph, a.of(s)
    per_iteration = g.div(operations, a.iterations(s.loops))
    depth = len(s.loops)
    curve = []
    for level in range(depth + 1):
        touched = g.sum(u.footprints[level].elements * u.access.itemsize for u in uses)
        curve.append(g.div(per_iteration * a.iterations(s.loops[level:]), touched))
    out = {}
    for n in range(10):
        at = n / 9 * depth
        low = min(int(at), max(depth - 1, 0))
        part = at - low
        out[f"intensity_{n}"] = curve[low] * (1 - part) + curve[min(low + 1, depth)] * part
    return out


def _allocation(a: Analysis, s: Statement) -> dict[str, Formula]:
    g, buffer = a.graph, s.target.buffer
    around = a.program.allocations.get(buffer.name)
    if around is None:
        return {}
    nbytes = g.product(s.target.extents) * buffer.dtype.nbytes
    count = a.iterations(around)
    return {
        "alloc_bytes": nbytes,
        "alloc_total": nbytes * count,
        "alloc_count": count,
        "alloc_inner": a.iterations([x for x in s.loops if x not in around]),
    }


# --- operator and instruction -----------------------------------------------------------------------


def operator_class(a: Analysis, s: Statement) -> str | None:
    """Which of :data:`~tilewright.cost.columns.CLASSES` the statement belongs to; None: another.

    A sum of products is told apart by how its loops address the operands: loops in all of them are a
    batch (groups, with a window), dimensions walked by result and sum together are windows.
    """
    if s.store.op is None:
        moves = any(True for _ in expressions(s.store.value))
        return "elementwise" if moves else None
    inputs = [x for x in s.accesses if not x.writes]
    if s.store.op != "+" or len(inputs) != 2 or not _has_product(s):
        return "normalisation" if _normalises(a) else "reduction"
    reduction = frozenset(s.reduction)
    result = frozenset(s.loops) - reduction
    if any(d.floors or d.irregular for x in inputs for d in x.logical) or s.guarded:
        return "transposed"
    windows = max(sum(bool(d.loops & reduction) and bool(d.loops & result) for d in x.logical) for x in inputs)
    shared = any(all(x in i.loops for i in inputs) for x in result)
    if windows:
        return "grouped" if shared else CLASSES[min(windows, 3) + CLASSES.index("conv1d") - 1]
    return "batch_matmul" if shared else "dense"


def _has_product(s: Statement) -> bool:
    return any(isinstance(e, ex.Binary) and e.op == "*" for e in expressions(s.store.value))


def _normalises(a: Analysis) -> bool:
    names = {e.name for t in a.program.statements for e in expressions(t.store.value) if isinstance(e, ex.Intrinsic)}
    return bool(names & {"exp", "exp2", "sqrt", "rsqrt"})


def _assignment(a: Analysis, s: Statement, machine: Machine) -> dict[str, Formula]:
    """Operands and tile of the instruction a statement is part of: called, or (without vectors) written as its unrolled loops."""
    g = a.graph
    inside = [x for x in s.loops if x.kind in (LoopKind.VECTOR, LoopKind.UNROLL)]
    written = bool(inside) and not machine.vector_bits and issued(machine, s.store) is not None
    if s.instruction is None and not written:
        return {}
    sums = [x for x in inside if x in s.reduction]
    out = {
        "instruction": g.const(1),
        "instruction_result": g.product(x.trips for x in inside if x not in sums),
        "instruction_sum": g.product(x.trips for x in sums),
        "instruction_bits_in": g.const(max((x.buffer.dtype.bits for x in s.accesses if not x.writes), default=0)),
        "instruction_bits_out": g.const(s.target.buffer.dtype.bits),
    }
    for n, (access, tile) in enumerate(_tiles(a, s, frozenset(inside))):
        level, parent = _levels(machine, access)
        out |= {f"operand{n}_level": g.const(level), f"operand{n}_parent_level": g.const(parent), f"operand{n}_tile": tile}
        out |= {f"operand{n}_bits": g.const(access.buffer.dtype.bits), f"operand{n}_layout": g.const(len(access.physical))}
    return out


def _tiles(a: Analysis, s: Statement, inside: frozenset[Loop]) -> Iterator[tuple[Access, Formula]]:
    for u in a.of(s)[:3]:
        yield u.access, a.graph.product(x.trips for x in inside if x in u.access.loops)


def _levels(machine: Machine, access: Access) -> tuple[int, int]:
    memory = next((m for m in machine.memories if m.name == access.buffer.memory), machine.main_memory)
    return memory.level, machine.memory(memory.parent).level if memory.parent else memory.level
