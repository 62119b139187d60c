"""Mapping text: round trip, refusals, and the kernels that layers become, which compute what the layers do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.cost.loopnest import LoopNest, convolution, mapping_program, parse_nest
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel, specialize
from tilewright.lang import parse
from tilewright.util.errors import MappingError

TEXTS = (
    "L3[WIO] N1 - L2[WI] N1 - L1[O] N1 - L0[W] N1",
    "L3[WIO] P2 R3 Q3 K2 - L2[WI] N1 K2X - L1[O] K2 S3 Q2 P2 C3X - L0[W] P2",
    "DRAM[ABC] K7 - Buffer[] N1 M2X K3X",
)

GEMM = parse("""
@kernel(params=("M", "N"))
def gemm(A: f32[M, 10], B: f32[10, N], C: f32[M, N]):
    for m in range(M):
        for n in range(N):
            for k in range(10):
                C[m, n] += A[m, k] * B[k, n]
""")


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_reading_and_writing(text: str) -> None:
    assert str(parse_nest(text)) == text


@hs.composite
def texts(draw: Any) -> str:
    def loops(mark: str, least: int) -> list[str]:
        dims = draw(hs.lists(hs.sampled_from("NKCPQRS"), unique=True, max_size=4, min_size=least))
        return [f"{d}{draw(hs.integers(2, 5000))}{mark}" for d in dims]

    levels = []
    for name in draw(hs.lists(hs.sampled_from(["L5", "L4", "L3", "L2", "L1", "L0"]), unique=True, min_size=1)):
        keeps = "".join(draw(hs.lists(hs.sampled_from("WIO"), unique=True)))
        levels.append(f"{name}[{keeps}] {' '.join([*(loops('', 0) or ['N1']), *loops('X', 0)])}")
    return " - ".join(levels)


@given(texts())
def test_any_text_survives_reading_and_writing(text: str) -> None:
    nest = parse_nest(text)
    assert str(nest) == text
    assert nest.structure().structure() == nest.structure()
    assert len(nest.environment()) == len(list(nest.loops()))


def test_loops_of_one_iteration_are_left_out() -> None:
    assert str(parse_nest("L1[WIO] P1 C4 - L0[W] K1X")) == "L1[WIO] C4 - L0[W] N1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L1[WIO P2", r"'L1\[WIO P2' is not a level"),
        ("L1[WIO] P2 - ", "'L1.WIO. P2 -' is not a level|'' is not a level"),
        ("L1[WIO] p2", "is not a level"),
        ("L1[WIO] P2x", "is not a level"),
        ("L1[WIO] P0", "loop P0 of level L1 has no iterations"),
        ("L1[WIO] P2 P3", "a dimension twice"),
        ("L1[WIO] P2 - L1[W] P3", "two levels of one name: L1 L1"),
    ],
)
def test_what_is_no_mapping_is_refused(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_nest(text)


def run(kernel: Kernel, **inputs: np.ndarray) -> np.ndarray:
    (name,) = (b.name for b in kernel.args if b.name not in inputs)
    out = np.zeros(kernel.arg(name).static_shape, np.int32 if name == "O" else np.float32)
    interpret(kernel, {**inputs, name: out})
    return out


def test_the_program_of_a_mapping_is_the_convolution() -> None:
    nest = parse_nest(TEXTS[1])
    kernel = mapping_program(convolution((2, 1), (1, 2)), nest)
    assert parse(str(kernel)) == kernel
    rng = np.random.default_rng(0)
    w, i = (rng.integers(-9, 9, kernel.arg(n).static_shape, dtype=np.int8) for n in "WI")
    assert (w.shape, i.shape) == ((8, 3, 3, 3), (1, 3, 17, 10))
    windows = np.lib.stride_tricks.sliding_window_view(i[0], (3, 5), axis=(1, 2))[:, ::2, :, :, ::2]
    assert (run(kernel, W=w, I=i)[0] == np.einsum("kcrs,cpqrs->kpq", w.astype(np.int32), windows)).all()


def test_a_symbolic_program_bound_to_numbers_is_the_concrete_one() -> None:
    nest = parse_nest(TEXTS[1])
    symbolic = mapping_program(convolution(("SH", 1)), nest.structure())
    assert {v.name for v in symbolic.sizes} == {*nest.environment(), "SH"}
    bound = specialize(symbolic, SH=2, **nest.environment())
    rng = np.random.default_rng(1)
    w, i = (rng.integers(-9, 9, bound.arg(n).static_shape, dtype=np.int8) for n in "WI")
    assert (run(bound, W=w, I=i) == run(mapping_program(convolution((2, 1)), nest), W=w, I=i)).all()


@settings(max_examples=20, deadline=None)
@given(hs.permutations(["M2", "K3", "N3"]), hs.integers(4, 5))
def test_padding_is_skipped_when_the_program_runs(order: list[str], inner: int) -> None:
    kernel = mapping_program(GEMM, parse_nest(f"L1[ABC] {' '.join(order)} - L0[C] K{inner} M3X"))
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((6, 10), np.float32), rng.standard_normal((10, 3), np.float32)
    assert np.allclose(run(kernel, A=a, B=b), a @ b, atol=1e-5)


def test_a_mapping_must_fit_its_layer() -> None:
    with pytest.raises(MappingError, match="factors of K make 6, the layer has 10"):
        mapping_program(GEMM, parse_nest("L1[ABC] K6 M2"))
    with pytest.raises(MappingError, match="layer gemm has no dimension P"):
        mapping_program(GEMM, parse_nest("L1[ABC] P6"))
    with pytest.raises(MappingError, match="dimension K of gemm is 10"):
        mapping_program(GEMM, parse_nest("L1[ABC] K10").structure())


def test_a_layer_must_be_one_nest() -> None:
    two = parse("""
@kernel
def two(x: f32[4]):
    for i in range(4):
        x[i] = 0.0
        x[i] = 1.0
""")
    with pytest.raises(MappingError, match="layer two is not a perfect nest"):
        mapping_program(two, LoopNest(()))
