"""What a declaration says is what the instruction object holds; what it may not say is refused."""

# ruff: noqa: F821, F841  (bodies are declarations, some of them wrong on purpose)
from __future__ import annotations

import numpy as np
import pytest

from tilewright.hw import (
    Instruction,
    InstructionFamily,
    Memory,
    State,
    axes,
    base,
    cpu,
    extent,
    instruction,
    mantissa,
    needs,
    require,
    step,
    stride,
    tied,
    transfer,
    upto,
    value_range,
    vector,
)
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.types import f32, i8, i32, u8
from tilewright.lang import kernel
from tilewright.util.errors import MachineError

REG, DRAM = "reg", "dram"
SPAD = Memory("spad", "scratchpad", 1 << 16, level=1, parent="dram")


@instruction(latency=7, per_cycle=0.5, energy=3.0, requires=cpu("avx2"))
def mac(c: f32[8, 16] @ REG, a: f32[8] @ SPAD, b: f32[32] @ REG):
    i, j, k = axes(upto(8), vector(16), step(2, 4))
    require(stride(b, 0) == 1)
    require(base(b) % 64 == 0)
    require(extent(i) * 16 <= 128)
    value_range(a, 0, 127)
    mantissa(b, 10)
    tied(c, b)
    c[i, j] += a[i] * b[j + 2 * k]


def test_everything_declared_is_kept() -> None:
    assert (mac.latency, mac.per_cycle, mac.energy, mac.requires) == (7, 0.5, 3.0, cpu("avx2"))
    assert [(a.name, str(a.rule), a.kind) for a in mac.axes] == [
        ("i", "upto(8)", "spatial"),
        ("j", "vector(16)", "spatial"),
        ("k", "step(2, 4)", "reduction"),
    ]
    assert [(o.name, str(o.dtype), o.shape, o.memory, o.role) for o in mac.operands] == [
        ("c", "f32", (8, 16), "reg", "inout"),
        ("a", "f32", (8,), "spad", "in"),
        ("b", "f32", (32,), "reg", "in"),
    ]
    assert [str(c) for c in mac.constraints][2:] == [
        "require(extent(i) * 16 <= 128)",
        "value_range(a, 0, 127)",
        "mantissa(b, 10)",
        "tied(c, b)",
    ]
    assert mac.loc is not None and mac.loc.file == __file__


def test_kernel_is_the_loop_nest_of_the_axes() -> None:
    @kernel
    def by_hand(c: f32[8, 16] @ REG, a: f32[8] @ SPAD, b: f32[32] @ REG):
        for i in unroll(8):
            for j in vector(16):
                for k in vector(4):
                    c[i, j] += a[i] * b[j + 2 * k]

    assert mac.kernel == by_hand.with_(name="mac")


def test_requirements_are_evaluated_like_any_index_expression() -> None:
    unit_stride, aligned, small = mac.requirements
    assert unit_stride.variables == {"b.stride[0]"}
    assert unit_stride.holds({"b.stride[0]": 1}) and not unit_stride.holds({"b.stride[0]": 2})
    assert aligned.holds({"b.base": 128}) and not aligned.holds({"b.base": 32})
    assert small.holds({"i.extent": 8}) and not small.holds({"i.extent": 9})


def test_kernel_for_shrinks_loops_and_operands() -> None:
    k = mac.kernel_for({"i": 3, "k": 2})
    assert [b.static_shape for b in k.args] == [(3, 16), (3,), (18,)]
    assert [ex.evaluate(f.extent, {}) for f in st.loops(k)] == [3, 16, 2]


@pytest.mark.parametrize("extents", [{"i": 9}, {"i": 0}, {"j": 8}, {"k": 3}, {"k": 6}])
def test_kernel_for_refuses_what_hardware_does_not_accept(extents: dict[str, int]) -> None:
    with pytest.raises(MachineError, match=r"cannot run .* iterations of axis"):
        mac.kernel_for(extents)


def test_cycles_shrink_only_where_hardware_does_less() -> None:
    assert mac.cycles() == 2
    assert mac.cycles({"i": 4}) == 1
    assert mac.cycles({"j": 8}) == 2
    assert mac.cycles({"k": 1}) == 1


def test_operations_are_counted_from_the_body() -> None:
    assert mac.macs == 8 * 16 * 4
    assert mac.ops == 2 * mac.macs


def test_family_declares_one_instruction_for_each_shape() -> None:
    @instruction(shapes=[(16, 16, 16), {"m": 32, "n": 8, "k": 16}], per_cycle=lambda m, n, k: 1 / k)
    def mma(c: i32[m, n] @ REG, a: i8[m, k] @ REG, b: i8[k, n] @ REG):
        i, j, l = axes(m, n, k)
        c[i, j] += a[i, l] * b[l, j]

    assert isinstance(mma, InstructionFamily)
    assert [i.name for i in mma.members] == ["mma.m16n16k16", "mma.m32n8k16"]
    assert mma.members[1].operand("a").shape == (32, 16)
    assert mma.members[0].per_cycle == 1 / 16


def test_local_names_are_seen_by_annotations() -> None:
    def declare(dim: int) -> Instruction:
        place = "spad"

        @instruction()
        def add(c: i32[dim] @ place, a: i32[dim] @ place):
            i = axes(dim)
            c[i] = c[i] + a[i]

        return add

    assert [declare(n).operand("a").shape for n in (4, 9)] == [(4,), (9,)]


def test_transfer_takes_its_ends_from_the_operands() -> None:
    @transfer(granularity=8, most=64, latency=10, bandwidth=4)
    def load(dst: u8[8] @ SPAD, src: u8[8] @ DRAM):
        i = axes(upto(8))
        dst[i] = src[i]

    assert (load.src, load.dst, load.name) == ("dram", "spad", "load")
    assert load.cycles(9) == 10 + 16 / 4


def test_transfer_must_read_one_operand() -> None:
    with pytest.raises(MachineError, match="must write one operand and read one, not 1 and 2"):

        @transfer()
        def load(dst: u8[8] @ SPAD, src: u8[8] @ DRAM, more: u8[8] @ DRAM):
            i = axes(8)
            dst[i] = src[i] | more[i]


def test_needs_names_a_state_and_values() -> None:
    state = State("cfg", (("mode", u8),), setter="set")
    assert needs(state, mode=1) == needs("cfg", mode=1)


def declare_without_memory() -> None:
    @instruction()
    def bad(c: f32[8], a: f32[8] @ REG):
        i = axes(8)
        c[i] += a[i]


def declare_without_body() -> None:
    @instruction()
    def bad(c: f32[8] @ REG):
        i = axes(8)


def declare_with_unknown_name() -> None:
    @instruction()
    def bad(c: f32[8] @ REG):
        i = axes(8)
        c[i] += nowhere[i]


def declare_with_wrong_rank() -> None:
    @instruction()
    def bad(c: f32[8] @ REG, a: f32[8] @ REG):
        i = axes(8)
        c[i] += a[i, i]


def declare_with_missing_axis_name() -> None:
    @instruction()
    def bad(c: f32[8] @ REG, a: f32[8] @ REG):
        i, j = axes(8)
        c[i] += a[j]


def declare_with_empty_range() -> None:
    @instruction()
    def bad(c: i32[8] @ REG, a: i8[8] @ REG):
        i = axes(8)
        value_range(a, 5, 4)
        c[i] += a[i]


def declare_with_stride_of_missing_dimension() -> None:
    @instruction()
    def bad(c: i32[8] @ REG, a: i8[8] @ REG):
        i = axes(8)
        require(stride(a, 1) == 1)
        c[i] += a[i]


def declare_with_require_of_a_flag() -> None:
    @instruction()
    def bad(c: i32[8] @ REG, a: i8[8] @ REG):
        i = axes(8)
        require(stride(a, 0))
        c[i] += a[i]


def declare_with_zero_extent() -> None:
    @instruction()
    def bad(c: i32[8] @ REG, a: i8[8] @ REG):
        i = axes(0)
        c[i] += a[i]


def declare_with_uneven_step() -> None:
    @instruction()
    def bad(c: i32[8] @ REG, a: i8[8] @ REG):
        i = axes(step(3, 8))
        c[i] += a[i]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (declare_without_memory, "operand c does not say its type and memory"),
        (declare_without_body, "stores nothing"),
        (declare_with_unknown_name, "nowhere"),
        (declare_with_wrong_rank, "a has 1 dimension"),
        (declare_with_missing_axis_name, "2 axis names for 1 extents"),
        (declare_with_empty_range, r"value_range\(a, 5, 4\) is empty"),
        (declare_with_stride_of_missing_dimension, "a has 1 dimensions"),
        (declare_with_require_of_a_flag, "require takes one comparison"),
        (declare_with_zero_extent, "must be an int >= 1"),
        (declare_with_uneven_step, "8 is not a multiple of 3"),
    ],
)
def test_bad_declaration_is_refused_with_its_place(declare, message) -> None:
    with pytest.raises(MachineError, match=message) as caught:
        declare()
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


def test_errors_in_the_body_point_at_the_statement() -> None:
    with pytest.raises(MachineError) as caught:
        declare_with_wrong_rank()
    assert caught.value.location is not None and caught.value.location.text.strip() == "c[i] += a[i, i]"


def test_body_may_be_a_program() -> None:
    """Loops, locals, branches and gathers: whatever the kernel language can say."""

    @instruction()
    def lookup(c: i32[8] @ REG, a: u8[8] @ REG, table: i32[4, 2] @ SPAD):
        i = axes(upto(8))
        t = alloc(i32, REG)
        t = 0
        for h in range(2):
            t += table[a[i] % 4, h]
        c[i] = t

    values = {"c": np.zeros(8, np.int32), "a": np.arange(8, dtype=np.uint8), "table": np.arange(8, dtype=np.int32).reshape(4, 2)}
    interpret(lookup.kernel, values)
    np.testing.assert_array_equal(values["c"], values["table"].sum(1)[values["a"] % 4])
    assert [b.static_shape for b in lookup.kernel_for({"i": 3}).args] == [(3,), (3,), (4, 2)]


def test_body_may_call_a_kernel() -> None:
    @kernel
    def double(y: i32[4], x: i32[4]):
        for j in range(4):
            y[j] = x[j] + x[j]

    @instruction()
    def twice(c: i32[4] @ REG, a: i32[4] @ REG):
        double(c[0:4], a[0:4])

    values = {"c": np.zeros(4, np.int32), "a": np.arange(4, dtype=np.int32)}
    interpret(twice.kernel, values)
    np.testing.assert_array_equal(values["c"], [0, 2, 4, 6])
    assert [o.role for o in twice.operands] == ["out", "in"]
