"""Values that pass through a memory whose transfers do the arithmetic: on Gemmini, and on a machine declared here."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as hs

from tilewright.codegen.commands import Fence, Host, Item, Loop, check, generate, walk
from tilewright.cost.explicit import counted
from tilewright.cost.tape import Tape
from tilewright.hw import Machine, Memory, Unit, load_machine
from tilewright.hw.axis import axes, upto
from tilewright.hw.transfer import transfer
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import replay
from tilewright.sim.gemmini.generated import execute
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

PHASES = (Phase.explicit, Phase.generate)
GEMMINI = load_machine("gemmini")


def toy() -> Machine:
    """Adds on the way in, keeps the larger of a sum and nothing on the way out. No instruction computes."""
    dram, sums = "dram", "sums"

    @transfer(granularity=4, latency=10, bandwidth=4)
    def fill(dst: f32[2, 4] @ sums, src: f32[2, 4] @ dram):  # type: ignore[valid-type, no-untyped-def]
        i, j = axes(upto(2), upto(4))
        dst[i, j] = src[i, j]

    @transfer(granularity=4, latency=10, bandwidth=4)
    def add(dst: f32[2, 4] @ sums, src: f32[2, 4] @ dram):  # type: ignore[valid-type, no-untyped-def]
        i, j = axes(upto(2), upto(4))
        dst[i, j] += src[i, j]

    @transfer(granularity=4, latency=10, bandwidth=4)
    def drain(dst: f32[2, 4] @ dram, src: f32[2, 4] @ sums):  # type: ignore[valid-type, no-untyped-def]
        i, j = axes(upto(2), upto(4))
        dst[i, j] = max(src[i, j], 0.0)  # type: ignore[call-overload]

    memories = [Memory("dram", "main", None, level=1, bandwidth=4), Memory("sums", "scratchpad", 256, 0, "dram", line=16)]
    return Machine("adder", memories=memories, units=[Unit("core", 1)], instructions=[], transfers=[fill, add, drain])


def floats(rows: int, cols: int, value: str = "max(a[i, j] + b[i, j] + c[i, j], 0.0)") -> Kernel:
    kind = f"f32[{rows}, {cols}]"
    return parse(f"""
@kernel
def total(a: {kind}, b: {kind}, c: {kind}, y: {kind}):
    for i in range({rows}):
        for j in range({cols}):
            y[i, j] = {value}
""")


def residual(rows: int, cols: int, value: str, layout: str = "0 1") -> Kernel:
    kind = f'buffer(i8[{rows}, {cols}], "dram", layout="{layout}")'
    return parse(f"""
@kernel
def residual(a: {kind}, b: {kind}, y: {kind}):
    for i in range({rows}):
        for j in range({cols}):
            y[i, j] = {value}
""")


def as_written(space: Space) -> bool:
    return [s.name for s in space.sketches] == ["as written"]


@settings(max_examples=10, deadline=None, phases=PHASES)
@given(hs.integers(1, 9), hs.integers(2, 11), hs.integers(0, 2**32 - 1))
@example(rows=1, cols=7, seed=0)  # one row takes the long axis of a transfer, not the short one
def test_sums_on_a_machine_declared_in_a_test(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = floats(rows, cols)
    space = Space(kernel, toy())
    for p in np.unique(space.sample(4, rng), axis=0):
        sch = space.schedule(p)
        verify(sch.kernel)
        assert replay(kernel, sch.trace, space.machine).kernel == sch.kernel
        a, b, c = (rng.integers(-9, 9, (rows, cols)).astype("f4") for _ in range(3))
        y = np.zeros((rows, cols), "f4")
        interpret(sch.kernel, [a, b, c, y])
        np.testing.assert_array_equal(y, np.maximum(a + b + c, 0))
        held = [m for m in st.allocated(sch.kernel) if m.memory == "sums"]
        assert held and sum(np.prod([int(e.value) for e in m.physical_shape()]) * 4 for m in held) <= 256  # type: ignore[attr-defined]


@pytest.mark.parametrize(("count", "least"), [(5, 4), (70, 1)])
def test_of_many_nests_each_is_cut_along_each_of_its_loops(count: int, least: int) -> None:
    """Two structures for each of the nests: more combinations than are tried, of 70 more than a machine integer counts."""
    kind = "f32[6, 8]"
    nests = "".join(
        f"""
    for i{n} in range(6):
        for j{n} in range(8):
            y{n}[i{n}, j{n}] = max(a[i{n}, j{n}] + b[i{n}, j{n}], 0.0)"""
        for n in range(count)
    )
    results = ", ".join(f"y{n}: {kind}" for n in range(count))
    space = Space(parse(f"@kernel\ndef sums(a: {kind}, b: {kind}, {results}):{nests}\n"), toy())
    names = [s.name for s in space.sketches]
    assert len(set(names)) == len(names) == 16
    for n in range(count):
        along_rows, along_columns = (sum(re.search(rf"blocks {loop}{n}\b", name) is not None for name in names) for loop in "ij")
        assert least <= along_rows <= 16 - least and along_rows + along_columns == 16


def test_the_estimate_counts_what_is_moved() -> None:
    """Three operands in, one out, once each, however the loops are cut."""
    space = Space(floats(6, 8), toy())
    for p in space.enumerate(50):
        sketch = space.sketch(p)
        counts = counted(sketch.program, space.machine)
        read, written = (float(Tape([f])(space.values(p))[0]) for f in (counts.read, counts.written))
        assert (read, written) == (3 * 6 * 8 * 4, 6 * 8 * 4)
    assert np.isfinite(space.estimate(space.enumerate(50))).all()


@pytest.mark.parametrize(
    "value",
    [
        "max(a[i, j] * b[i, j] + c[i, j], 0.0)",  # nothing multiplies
        "max(a[i, j] + b[i, j] + c[i, j], 1.0)",  # another limit on the way out
        "a[i, j] + b[i, j]",  # the way out always limits
        "a[i, j]",  # no arithmetic: a copy
    ],
)
def test_what_no_transfer_does_stays_as_written(value: str) -> None:
    assert as_written(Space(floats(4, 8, value), toy()))


SCALED = "i8(min(max(round(f32(a[i, j] + b[i, j]) * 0.3), -128.0), 127.0))"
RECTIFIED = "i8(min(max(round(f32(a[i, j] + b[i, j]) * 0.3), 0.0), 127.0))"
LOADED = "i8(min(max(round(f32(a[i, j]) * 0.7), -128.0), 127.0))"
PLAIN = "i8(min(max(a[i, j] + b[i, j], -128), 127))"


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (SCALED, lambda a, b: np.clip(np.rint((a + b).astype("f4") * np.float32(0.3)), -128, 127)),
        (RECTIFIED, lambda a, b: np.clip(np.rint((a + b).astype("f4") * np.float32(0.3)), 0, 127)),
        (PLAIN, lambda a, b: np.clip(a + b, -128, 127)),
        ("i8(min(max(b[i, j] + a[i, j], 0), 127))", lambda a, b: np.clip(a + b, 0, 127)),
        (
            f"i8(min(max({LOADED} + b[i, j], -128), 127))",
            lambda a, b: np.clip(np.clip(np.rint(a.astype("f4") * np.float32(0.7)), -128, 127) + b, -128, 127),
        ),
        (
            "i8(min(max(round(f32(a[i, j]) * 1.7), -128.0), 127.0))",
            lambda a, b: np.clip(np.rint(a.astype("f4") * np.float32(1.7)), -128, 127),
        ),
    ],
    ids=["scaled", "rectified", "saturated", "saturated and rectified", "scaled on the way in", "one operand"],
)
@pytest.mark.parametrize(("rows", "cols", "layout"), [(18, 70, "0 1"), (40, 17, "1 0"), (1, 9, "0 1")])
def test_residual_sums_are_bit_exact_on_gemmini(value: str, want, rows: int, cols: int, layout: str) -> None:  # type: ignore[no-untyped-def]
    kernel = residual(rows, cols, value, layout)
    space = Space(kernel, GEMMINI)
    rng = np.random.default_rng(0)
    for p in [space.default(), *space.sample(1, rng)]:
        program = generate(space.schedule(p).kernel, GEMMINI)
        check(program, GEMMINI)
        assert not any(isinstance(i, Host) for i in walk(program.body))
        a, b = (rng.integers(-128, 128, (rows, cols)).astype(np.int8) for _ in range(2))
        y = np.zeros((rows, cols), np.int8)
        execute(program, GEMMINI, {"a": a, "b": b, "y": y})
        np.testing.assert_array_equal(y, want(a.astype(np.int32), b.astype(np.int32)).astype(np.int8))


def test_what_is_added_waits_for_what_it_is_added_to() -> None:
    """Loads are begun in order and may end in another: without a fence between them the first could replace the second's sum."""
    kernel = residual(200, 64, RECTIFIED)
    space = Space(kernel, GEMMINI)
    program = generate(space.schedule(space.default()).kernel, GEMMINI)

    def without(items: tuple[Item, ...]) -> tuple[Item, ...]:
        kept = (replace(i, body=without(i.body)) if isinstance(i, Loop) else i for i in items if not isinstance(i, Fence))
        return tuple(kept)

    bare = (*without(program.body), Fence())
    assert len(list(walk(bare))) < len(list(walk(program.body)))
    with pytest.raises(CodegenError, match=r"adds to line 0 of acc, which a move under way may still replace"):
        check(replace(program, body=bare), GEMMINI)
    alone = generate(
        Space(residual(200, 64, "i8(min(max(round(f32(a[i, j]) * 1.7), -128.0), 127.0))"), GEMMINI).schedule(space.default()).kernel,
        GEMMINI,
    )
    assert [isinstance(i, Fence) for i in walk(alone.body)].count(True) == 1, "nothing is added: only the end is waited for"


@pytest.mark.parametrize(
    "value",
    [
        "i8(min(max(a[i, j] - b[i, j], -128), 127))",  # nothing subtracts
        "i8(min(max(a[i, j] * b[i, j], -128), 127))",
        "i8(min(max(a[i, j] + b[i, j], -100), 100))",  # other limits
        "i8(a[i, j] + b[i, j])",  # wraps instead of saturating
        "i8(min(max(round(fma(f32(a[i, j]), 0.5, f32(b[i, j]) * 0.3)), -128.0), 127.0))",  # a sum of scaled floats
    ],
)
def test_sums_that_gemmini_does_not_do(value: str) -> None:
    assert as_written(Space(residual(16, 16, value), GEMMINI))


def test_what_the_host_begins_it_finishes() -> None:
    """A nest that transfers could do, of values that another nest computes in main memory."""
    kernel = parse("""
@kernel
def both(a: i8[16, 16], b: i8[16, 16], y: i8[16, 16]):
    t = alloc(i32[16, 16])
    for i in range(16):
        for j in range(16):
            t[i, j] = a[i, j] * b[j, i]
    for i_1 in range(16):
        for j_1 in range(16):
            y[i_1, j_1] = i8(min(max(t[i_1, j_1] + t[i_1, j_1], -128), 127))
""")
    assert as_written(Space(kernel, GEMMINI))


def test_a_vector_processor_does_without() -> None:
    assert not any("through" in s.name for s in Space(residual(16, 16, PLAIN), load_machine("x86.avx512")).sketches)
