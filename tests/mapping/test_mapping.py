"""Text form, explanations, types and ranges, physical placement, machines of the library."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.hw import list_machines, load_machine
from tilewright.ir import stmt as st
from tilewright.ir.types import bf16, f16, f32, i8, i32, u8
from tilewright.mapping import explain, feasible, find_mappings, operator_of, parse_mapping, rank, target_of
from tilewright.mapping import operators as ops
from tilewright.mapping.operator import plain
from tilewright.util.errors import MappingError

INTS = (i32, i32, i32)


@pytest.fixture(scope="module")
def conv():
    return operator_of(ops.c2d(n=2, k=4, p=3, q=5, c=3, r=2, s=3, types=INTS))


def test_text_round_trips(shapes, conv):
    for instr in ("mma", "gemv", "dot", "outer", "row"):
        for m in find_mappings(conv, shapes[instr], orders="all"):
            assert parse_mapping(conv, shapes[instr], str(m)) == m


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("i<-n j<-k", r"gives axes i, j; mma has i, j, k"),
        ("i<-n j<-k k<-c l<-r", r"gives axes i, j, k, l; mma has i, j, k"),
        ("i<-n j<-k k<-z", r"conv2d has no iteration 'z'"),
        ("i<-n*p j<-k k<-c*p", r"uses iteration p twice"),
        ("i<-n j<-k k<-c then", r"cannot read 'then'"),
        ("i<-n j<-k k<-c [a=image]", r"\[a=image\] does not give a, b each one of image, weight"),
    ],
)
def test_unreadable_texts_are_refused(shapes, conv, text, message):
    with pytest.raises(MappingError, match=message):
        parse_mapping(conv, shapes["mma"], text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("i<-n*r j<-k k<-c", "r is a reduction iteration, axis i is a spatial axis"),
        ("i<-n*k j<-p k<-c", "image would need two elements in slot (i=0, k=0): p moves image, but a[i, k] has no index j"),
        ("i<-k j<-p k<-c [a=image, b=weight]", "weight would need two elements in slot (j=0, k=0): k moves weight, but b[k, j]"),
    ],
)  # fmt: skip
def test_explanations_name_operand_slot_and_iterations(shapes, conv, text, reason):
    said = explain(conv, shapes["mma"], text)
    assert "is not valid" in said and reason in said


def test_results_that_would_have_two_homes_are_explained(shapes):
    """A scatter: out[p + r] is met by several (p, r), so p and r cannot both be slots of the output."""
    e = {"p": 4, "r": 3, "k": 5, "c": 2}
    p, r, k, c = (ops.Var(n) for n in e)
    kernel = ops.contraction(
        "scatter", e, ops.element("out", i32, (p + r, k), e), ops.element("x", i32, (c, p, r), e), ops.element("w", i32, (k, c), e)
    )
    op = operator_of(kernel, at="p")
    assert [i.kind for i in op.iterations] == ["spatial", "spatial", "spatial", "reduction"]
    assert "slots (i=" in (said := explain(op, shapes["mma"], "i<-p*r j<-k k<-c")) and "p and r share an index of out" in said
    assert [str(m) for m in find_mappings(op, shapes["mma"])] == ["i<-p  j<-k  k<-c", "i<-r  j<-k  k<-c"]


def test_a_scatter_still_executes(shapes, run):
    e = {"p": 4, "r": 3, "k": 5, "c": 2}
    p, r, k, c = (ops.Var(n) for n in e)
    kernel = ops.contraction(
        "scatter", e, ops.element("out", i32, (p + r, k), e), ops.element("x", i32, (c, p, r), e), ops.element("w", i32, (k, c), e)
    )
    kernel = kernel.with_(body=st.block(kernel.body.stmts[-1]))  # accumulate onto what out holds
    for m in find_mappings(kernel, shapes["mma"]):
        assert np.array_equal(run(m.lower())["out"], run(kernel)["out"])


def test_valid_mapping_explains_its_index_arithmetic(shapes, conv):
    said = parse_mapping(conv, shapes["mma"], "i<-n*p*q j<-k k<-c*r*s").explain()
    assert "i = (n*15 + p*5 + q) mod 2" in said and "k = (c*6 + r*3 + s) mod 4" in said
    assert "a[i, k] holds image[n, c, p + r, q + s]" in said and "loops around the instruction: none" in said


def test_matrices_of_the_paper(shapes, conv):
    """The conv2d example of AMOS, figure 5: n, p, q on i; k on j; c, r, s on k."""
    x, y, z = parse_mapping(conv, shapes["mma"], "i<-n*p*q j<-k k<-c*r*s").matrices()
    assert x.astype(int).tolist() == [[1, 1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 1, 1]]
    assert y.astype(int).tolist() == [[1, 0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]
    assert z.astype(int).tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert np.array_equal(z @ y, x) and np.array_equal(x @ y.T, z)


def test_other_arithmetic_and_types_do_not_map(shapes, instruction, conv):
    tropical = instruction("tropical", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", op="max")
    assert find_mappings(conv, tropical) == []
    assert "conv2d computes `out += x0 * x1`, tropical computes `out max= i32(x0 + x1)`" in explain(conv, tropical, "i<-n j<-k k<-c")
    small = instruction("small", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", types=(i8, i8, i8))
    assert find_mappings(conv, small) == []
    said = explain(conv, small, "i<-n j<-k k<-c")
    assert "image is i32, operand a of small holds i8" in said and "out accumulates in i32, operand c of small in i8" in said


def test_value_ranges_must_be_known():
    """maddubs adds two products in a saturating int16: exact only for 7-bit weights."""
    maddubs = load_machine("x86.avx512").instruction("maddubs")
    op = operator_of(ops.c2d(types=(u8, i8, i32)))
    assert find_mappings(op, maddubs) == []
    said = explain(op, maddubs, "j<-k k<-c")
    assert "weight may hold -128..127, but maddubs is exact only for -64..6" in said
    found = find_mappings(op, maddubs, ranges={"weight": (-64, 63)})
    assert len(found) == 7 and all(m.problems() == [] for m in found)
    assert parse_mapping(op, maddubs, str(found[0]), ranges={"weight": (-64, 63)}) == found[0]
    assert "not valid" not in explain(op, maddubs, "j<-k k<-c", ranges={"weight": (-64, 63)})


def test_mappings_under_known_ranges_lower(run):
    maddubs = load_machine("x86.avx512").instruction("maddubs")
    kernel = ops.c2d(n=1, k=3, p=2, q=2, c=3, r=2, s=2, types=(u8, i8, i32))
    m = find_mappings(kernel, maddubs, ranges={"weight": (-64, 63)})[-1]
    assert np.array_equal(run(m.lower())["out"], run(kernel)["out"])
    with pytest.raises(MappingError, match=r"weight may hold -128\.\.127"):
        parse_mapping(m.op, maddubs, str(m)).lower()


def test_explain_without_a_candidate_says_what_could_ride_where(shapes, conv):
    said = explain(conv, shapes["mma"])
    assert "spatial axis i: n, p, q" in said and "spatial axis j: k" in said and "reduction axis k: c, r, s" in said
    assert "not k: weight would need two elements in slot (j=0, k=0): k moves weight, but b[k, j] has no index i" in said


# --- placement --------------------------------------------------------------------------------


@given(hs.tuples(*[hs.integers(1, 6)] * 7), hs.integers(0, 48))
@settings(max_examples=60, deadline=None)
def test_padded_work_is_the_work_of_the_lowered_program(shapes, extents, number):
    op = operator_of(ops.c2d(*extents, types=INTS))
    m = find_mappings(op, shapes["mma"])[number]
    p = m.physical()
    lowered = m.lower()
    trips = 1
    around = next(s for s in lowered.body.stmts if any(isinstance(t, st.Call) for t in st.walk(s)))
    for loop in st.loops(around):
        trips *= int(loop.extent.value)
    assert p.instructions == trips
    assert p.padded_work == Fraction(trips * 2 * 3 * 4, op.volume) >= 1
    assert p.packing_bytes == sum(b.nbytes for b in st.allocated(lowered))
    assert p.footprint == {"reg": 4 * (2 * 3 + 2 * 4 + 4 * 3)}
    assert (p.padded_work == 1) == (p.padded_axes == ())


def test_shapes_are_ranked_by_real_padded_work():
    """49 output points: 7 tiles of 8 with 7 lost beat 4 tiles of 16 with 15 lost and 2 of 32."""
    machine = load_machine("cuda.sm80")
    op = operator_of(ops.c2d(n=1, k=64, p=7, q=7, c=64, r=3, s=3, types=(f16, f16, f16)))
    every = [m for i in machine.instructions if i.family == "wmma_f16" for m in find_mappings(op, i)]
    assert len(every) == 3 * 49
    ranked = rank(every)
    assert ranked[0].target.name == "wmma_f16.m8n32k16" and ranked[0].physical().padded_work == Fraction(8, 7)
    works = [m.physical().padded_work for m in ranked]
    assert works == sorted(works)
    assert not ranked[0].physical().fits  # 7 < 8: only hardware that pads can take it
    unpadded = feasible(every)
    assert unpadded and {str(m).split()[0] for m in unpadded} == {"i<-p*q", "i<-n*p*q"}  # 49 fills 8, 16 and 32; 7 and 1 fill none


def test_tails_are_shared_where_the_hardware_accepts_fewer(run):
    """AMX tiles have up to 16 rows: 20 rows are two tiles of 10, not one of 16 and one padded from 4."""
    tdp = load_machine("x86.amx").instruction("tdpbssd")
    kernel = ops.gmm(20, 18, 70, types=(i8, i8, i32))
    (m,) = find_mappings(kernel, tdp)
    assert str(m) == "i<-i  j<-j  k_l<-k"  # 16 x 4 reduction steps seen as 64
    p = m.physical()
    assert (p.tiles, p.trips, p.padded_work) == ((10, 9, 36), (2, 2, 2), Fraction(72, 70))
    assert p.footprint == {"tmm": 10 * 9 * 4 + 10 * 36 + 9 * 36}
    assert np.array_equal(run(m.lower())["out"], run(kernel)["out"])


@pytest.mark.parametrize(
    ("machine", "name"), [("x86.vnni", "dpbusd"), ("gemmini", "matmul"), ("vta.pynq", "gemm"), ("cuda.sm80", "wmma_s8.m8n32k16")]
)
def test_declared_instructions_execute_conv2d_exactly(run, machine, name):
    target = target_of(load_machine(machine).instruction(name))
    types = (*(plain(s.expr).dtype for s in target.view.sources), target.view.output.dtype)
    kernel = ops.c2d(n=2, k=3, p=3, q=2, c=3, r=2, s=2, types=types)
    direct = run(kernel)["out"]
    found = find_mappings(kernel, target)
    for m in (found[0], found[-1]):
        assert np.array_equal(run(m.lower())["out"], direct), str(m)


def test_every_library_instruction_with_axes_is_a_target():
    seen = 0
    for name in list_machines():
        for i in load_machine(name).instructions:
            if i.axes and i.inputs:  # others fill a tile
                assert target_of(i).view.volume == i.macs
                seen += 1
    assert seen > 100


def test_precision_is_never_lost(shapes, instruction):
    half = instruction("half", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", types=(f16, f16, f16))
    wide = instruction("wide", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", types=(f16, f16, f32))
    assert find_mappings(ops.gmm(types=(f16, f16, f32)), half) == []
    assert len(find_mappings(ops.gmm(types=(f16, f16, f16)), wide)) == 1
    assert find_mappings(ops.gmm(types=(bf16, bf16, f32)), wide) == []
    assert find_mappings(ops.gmm(types=(f32, f32, f32)), wide) == []
