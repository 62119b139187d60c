"""Every column of the features against a count: small programs are run loop by loop, and what they touch is written down.

The counter shares nothing with the models: it walks the program, evaluates indices, and counts distinct addresses and lines.
Classes of operators are what a person calls them. In the end every column has been seen to be other than zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np
import pytest

from tilewright.cost.columns import BUFFERS, COLUMN, COLUMNS, PLAIN
from tilewright.cost.features import features
from tilewright.hw import Machine, load_machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Alloc, Call, For, Kernel, LoopKind, Stmt, Store
from tilewright.lang import parse

#: Bytes of a line by machine.
LINES = {"cuda.sm80": 32, "x86.avx512": 64, "x86.vnni": 64}


@dataclass
class Place:
    """One access of a statement: where it went in each iteration (the loops' counts: the element)."""

    buffer: Buffer
    read: bool
    write: bool
    line: int
    at: dict[tuple[int, ...], int] = field(default_factory=dict)

    def elements(self, first: int) -> int:
        """Distinct elements while the loops from number ``first`` inwards run once."""
        return len({e for i, e in self.at.items() if not any(i[:first])})

    def lines(self, first: int) -> int:
        """Distinct lines while the loops from number ``first`` inwards run once."""
        return len({e * self.buffer.dtype.nbytes // self.line for i, e in self.at.items() if not any(i[:first])})

    def every_line(self, first: int) -> int:
        """The sum of these over all iterations of the loops outside."""
        return len({(i[:first], e * self.buffer.dtype.nbytes // self.line) for i, e in self.at.items()})

    def repeats(self, loop: int) -> bool:
        """Whether the loop goes through more than one iteration at the same places."""
        groups: dict[tuple[int, ...], set[int]] = {}
        counts: dict[tuple[int, ...], int] = {}
        for i, e in self.at.items():
            key = (*i[:loop], -1, *i[loop + 1 :])
            groups.setdefault(key, set()).add(e)
            counts[key] = counts.get(key, 0) + 1
        return all(len(g) == 1 for g in groups.values()) and max(counts.values()) > 1


@dataclass
class Ran:
    """A statement and what its iterations touched; ``around`` are the loops around the allocation of what it writes."""

    store: Store
    loops: list[For]
    around: list[For] | None
    instruction: bool
    places: list[Place]
    trips: list[int] = field(default_factory=list)


def run(kernel: Kernel, line: int) -> list[Ran]:
    """The statements of a kernel of constant extents, in program order, after all their iterations."""
    found: dict[tuple[int, ...], Ran] = {}
    homes: dict[str, list[For]] = {}

    def visit(s: Stmt, path: tuple[int, ...], loops: list[For], env: dict[str, int], windows: dict[str, st.Window], called: bool) -> None:
        match s:
            case For():
                for n in range(int(ex.evaluate(s.hi, env))):
                    visit(s.body, path, [*loops, s], {**env, s.name: n}, windows, called)
            case Alloc():
                homes[s.buffer.name] = list(loops)
            case Call():
                given = {b.name: w for b, w in zip(s.kernel.args, s.args, strict=True)}
                visit(s.kernel.body, path, loops, env, given, True)
            case Store():
                record(s, path, loops, env, windows, called)
            case _:
                for n, t in enumerate(st.substmts(s)):
                    visit(t, (*path, n), loops, env, windows, called)

    def record(s: Store, path: tuple[int, ...], loops: list[For], env: dict[str, int], windows: dict[str, st.Window], called: bool) -> None:
        accesses = [(s.buffer, s.indices, s.op is not None, True), *((ld.buffer, ld.indices, True, False) for ld in ex.loads(s.value))]
        resolved = []
        for b, indices, read, write in accesses:
            w = windows.get(b.name)
            b, indices = (w.buffer, w.element(indices)) if w else (b, indices)
            resolved.append((b, str((b.name, [str(i) for i in indices])), tuple(int(ex.evaluate(i, env)) for i in indices), read, write))
        keys = list(dict.fromkeys(r[1] for r in resolved))
        if path not in found:
            found[path] = Ran(s, loops, homes.get(resolved[0][0].name), called, [])
            for k in keys:
                same = [r for r in resolved if r[1] == k]
                found[path].places.append(Place(same[0][0], any(r[3] for r in same), any(r[4] for r in same), line))
        ran = found[path]
        counts = tuple(env[f.name] for f in loops)
        ran.trips = [max(a, c + 1) for a, c in itertools.zip_longest(ran.trips, counts, fillvalue=0)]
        for place, k in zip(ran.places, keys, strict=True):
            at = next(r[2] for r in resolved if r[1] == k)
            place.at[counts] = int(np.ravel_multi_index(at, place.buffer.static_shape)) if at else 0

    visit(kernel.body, (), [], {}, {}, False)
    return [found[p] for p in sorted(found)]


def counted(kernel: Kernel, machine: Machine, said: Sequence[dict[str, int]]) -> Iterator[dict[str, float]]:
    """The columns of each statement that are not zero, before logarithms; ``said`` are its operations and class."""
    every = run(kernel, LINES[machine.name])
    for number, (r, words) in enumerate(zip(every, said, strict=True)):
        depth, times = len(r.loops), prod(r.trips)
        local = len(r.around or ())
        own = {n for n in range(depth) if r.store.op is None or n < local or not r.places[0].repeats(n)}
        out: dict[str, float] = {name: n * (1 if name.startswith("class_") else times) for name, n in words.items()}
        total = sum(n for name, n in out.items() if not name.startswith("class_"))
        for mark, kinds in (
            ("vector", (LoopKind.VECTOR,)),
            ("unroll", (LoopKind.UNROLL,)),
            ("parallel", (LoopKind.PARALLEL, LoopKind.BIND)),
        ):
            out |= marked(r, mark, kinds, own)
        out |= bound(r)
        sizes = {p.buffer.name: prod(p.buffer.static_shape) * p.buffer.dtype.nbytes for p in r.places}
        for n, name in enumerate(sorted(sizes, key=lambda b: -sizes[b])[:BUFFERS]):
            out |= {f"buffer{n}_{c}": v for c, v in buffer(every, number, name, machine).items()}
        touched = [sum(p.elements(level) * p.buffer.dtype.nbytes for p in r.places) for level in range(depth + 1)]
        curve = [total / times * prod(r.trips[level:]) / touched[level] for level in range(depth + 1)]
        out |= {f"intensity_{n}": v for n, v in enumerate(np.interp(np.linspace(0, depth, 10), range(depth + 1), curve))}
        if r.around is not None:
            outside = len(r.around)
            nbytes, count = sizes[r.places[0].buffer.name], prod(r.trips[:outside])
            out |= {"alloc_bytes": nbytes, "alloc_total": nbytes * count, "alloc_count": count, "alloc_inner": prod(r.trips[outside:])}
        out |= {"outer_prod": prod(r.trips[:-1]), "num_loops": depth, "auto_unroll": prod(unrolled(r))}
        if r.instruction:
            out |= assignment(r, own, machine)
        yield out


def unrolled(r: Ran) -> list[int]:
    return [t for f, t in zip(r.loops, r.trips, strict=True) if f.kind is LoopKind.UNROLL]


def marked(r: Ran, mark: str, kinds: tuple[LoopKind, ...], own: set[int]) -> dict[str, float]:
    at = [n for n, f in enumerate(r.loops) if f.kind in kinds]
    if not at:
        return {f"{mark}_pos_none": 1}
    summed = [n not in own for n in at]
    where = "inner" if at[-1] == len(r.loops) - 1 else "outer" if at[-1] == 0 else "middle"
    position = "mixed" if any(summed) and not all(summed) else f"{where}_{'reduce' if summed[0] else 'spatial'}"
    trips = [r.trips[n] for n in at]
    return {f"{mark}_num": len(at), f"{mark}_prod": prod(trips), f"{mark}_len": trips[-1], f"{mark}_pos_{position}": 1}


def bound(r: Ran) -> dict[str, float]:
    on = [(f.unit, t) for f, t in zip(r.loops, r.trips, strict=True) if f.kind is LoopKind.BIND]
    units = list(dict.fromkeys(u for u, _ in on))
    out: dict[str, float] = {"bound": 1} if on else {}
    for label, unit in zip(("outer", "inner"), units, strict=False):
        out |= {f"bound_{label}_{n}": t for n, t in enumerate([t for u, t in on if u == unit][:3])}
    rest = [t for u, t in on if u in units[2:]]
    return out | ({"bound_rest": prod(rest)} if rest else {})


def buffer(every: list[Ran], number: int, name: str, machine: Machine) -> dict[str, float]:
    r = every[number]
    places = [p for p in r.places if p.buffer.name == name]
    item, times, first = places[0].buffer.dtype.nbytes, prod(r.trips), places[0]
    reads, writes = any(p.read for p in places), any(p.write for p in places)
    step = len(r.loops)
    while step and r.loops[step - 1].kind in (LoopKind.VECTOR, LoopKind.UNROLL):
        step -= 1
    out: dict[str, float] = {
        "read": reads and not writes, "write": writes and not reads, "read_write": reads and writes,
        "bytes": len(places) * times * item, "unique_bytes": max(p.elements(0) for p in places) * item,
        "lines": sum(p.every_line(step) for p in places), "unique_lines": max(p.lines(0) for p in places),
    }  # fmt: skip
    again = [n for n in range(len(r.loops)) if first.repeats(n)]
    before = [e for e in every[:number] if any(p.buffer.name == name for p in e.places)]
    count = 1
    if again:
        loop = r.loops[again[-1]]
        count = r.trips[again[-1]]
        out |= {"reuse_multiple": 1, "reuse_iterations": prod(r.trips[again[-1] + 1 :]), "reuse_bytes": inside(every, loop, machine)}
    elif before:
        shared = sum(a is b for a, b in zip(before[-1].loops, r.loops, strict=False))
        count = 2
        nbytes = inside(every, r.loops[shared - 1] if shared else None, machine)
        out |= {"reuse_serial": 1, "reuse_iterations": prod(r.trips[shared:]), "reuse_bytes": nbytes}
    else:
        out["reuse_none"] = 1
    out |= {"reuse_count": count, **{f"{c}_per_reuse": out[c] / count for c in ("bytes", "unique_bytes", "lines", "unique_lines")}}
    if r.trips[-1] > 1:
        zero = (0,) * len(r.trips)
        out["stride"] = abs(first.at[(*zero[:-1], 1)] - first.at[zero])
    return out


def inside(every: list[Ran], loop: For | None, machine: Machine) -> int:
    """Bytes in lines that one iteration of ``loop`` (None: the program) touches, what is in registers left out."""
    most: dict[str, int] = {}
    for r in every:
        if loop is not None and not any(f is loop for f in r.loops):
            continue
        first = 0 if loop is None else 1 + next(n for n, f in enumerate(r.loops) if f is loop)
        for p in r.places:
            if p.buffer.memory not in {m.name for m in machine.memories if m.kind == "register"}:
                most[p.buffer.name] = max(most.get(p.buffer.name, 0), p.lines(first))
    return LINES[machine.name] * sum(most.values())


def assignment(r: Ran, own: set[int], machine: Machine) -> dict[str, float]:
    at = [n for n, f in enumerate(r.loops) if f.kind in (LoopKind.VECTOR, LoopKind.UNROLL)]
    out: dict[str, float] = {
        "instruction": 1, "instruction_result": prod(r.trips[n] for n in at if n in own),
        "instruction_sum": prod(r.trips[n] for n in at if n not in own),
        "instruction_bits_in": max(p.buffer.dtype.bits for p in r.places if not p.write),
        "instruction_bits_out": r.places[0].buffer.dtype.bits,
    }  # fmt: skip
    for n, p in enumerate(r.places[:3]):
        memory = next((m for m in machine.memories if m.name == p.buffer.memory), machine.main_memory)
        parent = machine.memory(memory.parent) if memory.parent else memory
        out |= {f"operand{n}_level": memory.level, f"operand{n}_parent_level": parent.level, f"operand{n}_bits": p.buffer.dtype.bits}
        out |= {f"operand{n}_tile": prod(r.trips[i] for i in at if not p.repeats(i)), f"operand{n}_layout": p.buffer.rank}
    return out


# --- programs -----------------------------------------------------------------------------------

MOVE, SUM = {"class_elementwise": 1}, {"class_reduction": 1}
DENSE = {"class_dense": 1, "float_mad": 1}
GEMM = """
@kernel
def gemm(a: f32[8, 16], b: f32[16, 64], c: f32[8, 64]):
    for jo in parallel(2):
        for io in range(2):
            t = alloc(f32[4, 32], "reg")
            for i in unroll(4):
                for j in vector(32):
                    t[i, j] = 0.0
            for k in range(16):
                for i_1 in unroll(4):
                    for j_1 in vector(32):
                        t[i_1, j_1] += a[io * 4 + i_1, k] * b[k, jo * 32 + j_1]
            for i_2 in unroll(4):
                for j_2 in vector(32):
                    c[io * 4 + i_2, jo * 32 + j_2] = max(t[i_2, j_2], 0.0)
"""
FLOATS = """
@kernel
def f(a: f32[4, 16], b: f32[5, 16], c: f32[6, 16], d: f32[7, 16], e: f32[8, 16], u: f64[9, 16], y: f32[10, 16], m: f32[4, 16]):
    for i in range(4):
        for j in range(16):
            y[i, j] = where(a[i, j] < b[i, j], c[i, j] / d[i, j] - exp(e[i, j]), f32(u[i, j]) * 2.0)
    for i_1 in range(4):
        for j_1 in range(16):
            m[i_1, j_1] = y[i_1, j_1] + y[i_1 + 2, j_1]
"""
INTS = """
@kernel
def f(p: i32[4, 16], q: i32[4, 16], v: i8[4, 64], z: i32[4, 16], s: i32[4, 16]):
    for i in range(4):
        for j in range(16):
            z[i, j] = where(p[i, j] < q[i, j] and q[i, j] < 9, abs(p[i, j]) % 3 + i32(v[i, j]) * 2, p[i, j] >> 1)
    for i_1 in range(4):
        for r in range(3):
            for j_1 in range(16):
                s[i_1, j_1] += p[r, j_1] * q[i_1, j_1]
"""
REDUCTIONS = """
@kernel
def f(x: f32[8, 16], y: f32[16], z: f32[16], w: i32[16], v: i32[8, 16]):
    for i in range(8):
        for j in range(16):
            y[j] += {value}
    for i_1 in range(8):
        for j_1 in range(16):
            z[j_1] *= x[i_1, j_1]
    for i_2 in range(8):
        for j_2 in range(16):
            w[j_2] = max(w[j_2], v[i_2, j_2])
"""
BOUND = """
@kernel
def f(x: f32[2, 3, 2, 2, 1, 2, 2, 16], y: f32[2, 3, 2, 2, 1, 2, 2, 16]):
    for a in bind("sm", 0, 2):
        for b in bind("sm", 0, 3):
            for c in bind("sm", 0, 2):
                for d in bind("warp", 0, 2):
                    for e in bind("warp", 0, 1):
                        for f in bind("warp", 0, 2):
                            for g in bind("lane", 0, 2):
                                for h in range(16):
                                    y[a, b, c, d, e, f, g, h] = x[a, b, c, d, e, f, g, h]
"""
CALLED = """
@kernel
def f(a: u8[3, 64], b: i8[2, 16, 4], c: i32[3, 16]):
    for i in range(3):
        for group in range(2):
            dot(c[i, 0:16], a[i, group * 4:group * 4 + 4], b[group, 0:16, 0:4])
"""
WINDOWS = """
@kernel
def f(x: f32[{x}, 16], w: f32[{w}, 4, 16], y: f32[{y}, 16]):
    for {loops} in grid({trips}):
        for c in range(4):
            for k in range(16):
                y[{yi}, k] += x[{xi}, c] * w[{wi}, c, k]
"""


def windows(loops: str, trips: str, **parts: str) -> str:
    return WINDOWS.format(loops=loops, trips=trips, **parts)


@dataclass(frozen=True)
class Case:
    """A program, and what a person says of each of its statements: operations of one iteration, and the class."""

    text: str
    said: tuple[dict[str, int], ...]
    machine: str = "x86.avx512"


CASES = {
    "gemm": Case(GEMM, (MOVE, DENSE, {**MOVE, "float_cmp": 1})),
    "floats": Case(
        FLOATS,
        (
            {
                **MOVE, "float_cmp": 1, "select_op": 1, "float_divmod": 1, "float_addsub": 1, "float_math": 1, "float_other": 1,
                "float_mul": 1,
            },
            {**MOVE, "float_addsub": 1},
        ),
    ),
    "ints": Case(
        INTS,
        (
            {
                **MOVE, "int_cmp": 2, "bool_op": 1, "select_op": 1, "int_math": 1, "int_divmod": 1, "int_addsub": 1,
                "int_mul": 1, "int_other": 3,  # two conversions, one of them to the common type of both sides, and a shift
            },
            {"class_batch_matmul": 1, "int_mad": 1},
        ),
    ),
    "reductions": Case(REDUCTIONS.format(value="x[i, j]"), ({**SUM, "float_addsub": 1}, {**SUM, "float_other": 1}, {**SUM, "int_cmp": 1})),
    "normalisation": Case(
        REDUCTIONS.format(value="exp(x[i, j])"),
        tuple({"class_normalisation": 1, **o} for o in ({"float_addsub": 1, "float_math": 1}, {"float_other": 1}, {"int_cmp": 1})),
    ),
    "bound": Case(BOUND, (MOVE,), "cuda.sm80"),
    "called": Case(CALLED, ({"class_dense": 1, "int_mad": 1},), "x86.vnni"),
    "conv1d": Case(
        windows("p, r", "3, 2", x="4", w="2", y="3", yi="p", xi="p + r", wi="r"), ({"class_conv1d": 1, "float_mad": 1},)
    ),
    "conv2d": Case(
        windows("p, q, r, s", "2, 3, 2, 2", x="3, 4", w="2, 2", y="2, 3", yi="p, q", xi="p + r, q + s", wi="r, s"),
        ({"class_conv2d": 1, "float_mad": 1},),
    ),
    "conv3d": Case(
        windows(
            "p, q, o, r, s, t", "2, 2, 2, 2, 2, 2",
            x="3, 3, 3", w="2, 2, 2", y="2, 2, 2", yi="p, q, o", xi="p + r, q + s, o + t", wi="r, s, t",
        ),
        ({"class_conv3d": 1, "float_mad": 1},),
    ),
    "grouped": Case(
        windows("g, p, r", "2, 3, 2", x="2, 4", w="2, 2", y="2, 3", yi="g, p", xi="g, p + r", wi="g, r"),
        ({"class_grouped": 1, "float_mad": 1},),
    ),
    "transposed": Case(
        windows("p, r", "4, 2", x="3", w="2", y="4", yi="p", xi="(p + r) // 2", wi="r"), ({"class_transposed": 1, "float_mad": 1},)
    ),
    "batch_matmul": Case(
        windows("g, i", "2, 3", x="2, 3", w="2", y="2, 3", yi="g, i", xi="g, i", wi="g"), ({"class_batch_matmul": 1, "float_mad": 1},)
    ),
}  # fmt: skip


def roles(n: int) -> str:
    """Buffer number ``n`` of five by size is updated and then overwritten, the next one is read again and again, the rest once."""
    at = [f"b{(n + m) % 5}" for m in range(5)]
    arguments = ", ".join(f"b{m}: f32[{24 - 4 * m}, 16]" for m in range(5))
    return f"""
@kernel
def f({arguments}):
    for i in range(4):
        for r in range(2):
            for j in range(16):
                {at[0]}[i, j] += {at[1]}[i, j] + {" + ".join(f"{b}[i * 2 + r, j]" for b in at[2:])}
    for i_1 in range(4):
        for j_1 in range(16):
            {at[0]}[i_1, j_1] = {" + ".join(f"{b}[i_1, j_1]" for b in at[1:])}
"""


CASES |= {f"roles {n}": Case(roles(n), ({**SUM, "float_addsub": 4}, {**MOVE, "float_addsub": 3})) for n in range(5)}
TRIPS = {"i": 4, "k": 4, "j": 16}


def annotated() -> Iterator[tuple[str, str]]:
    """A product in three orders of its loops, with every set of loops marked in one of three ways."""
    for order in ("ikj", "kij", "ijk"):
        for mark in ("vector", "unroll", "parallel"):
            for chosen in itertools.product((False, True), repeat=3):
                nest = [f"{mark if take else 'range'}" for take in chosen]
                lines = [f"{'    ' * (n + 1)}for {v} in {kind}({TRIPS[v]}):" for n, (v, kind) in enumerate(zip(order, nest, strict=True))]
                body = "                c[i, j] += a[i, k] * b[k, j]"
                head = "@kernel\ndef f(a: f32[4, 16], b: f32[4, 16], c: f32[4, 16]):"
                yield (
                    f"{order} {mark} {''.join(v for v, take in zip(order, chosen, strict=True) if take)}",
                    "\n".join([head, *lines, body]) + "\n",
                )


CASES |= {name: Case(text, (DENSE,)) for name, text in annotated()}


@cache
def found_and_expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the statements of a case before logarithms: from the features, and counted."""
    case = CASES[name]
    machine = load_machine(case.machine)
    kernel = parse(case.text, **({"dot": machine.instruction("dpbusd").kernel} if "dot(" in case.text else {}))
    found = features(kernel, machine)[0].astype(np.float64)
    plain = np.array([c in PLAIN for c in COLUMNS])
    found = np.where(plain, found, np.exp2(found) - 1)
    expected = np.zeros_like(found)
    for row, columns in zip(expected, counted(kernel, machine, case.said), strict=True):
        for column, value in columns.items():
            row[COLUMN[column]] = value
    return found, expected


@pytest.mark.parametrize("name", CASES)
def test_columns_are_what_is_counted(name: str) -> None:
    found, expected = found_and_expected(name)
    wrong = np.argwhere(~np.isclose(found, expected, rtol=1e-4, atol=1e-4))
    assert not [(int(s), COLUMNS[c], float(found[s, c]), float(expected[s, c])) for s, c in wrong]


def test_every_column_is_seen_at_work() -> None:
    seen = np.any([found_and_expected(name)[1].any(axis=0) for name in CASES], axis=0)
    assert [c for c, s in zip(COLUMNS, seen, strict=True) if not s] == []
