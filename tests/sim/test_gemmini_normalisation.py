"""The normalisation unit against its arithmetic in Python integers, and against the functions that it approximates."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.hw import load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.hw.library.gemmini_control import Control
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa, simulate
from tilewright.sim.gemmini.isa import ConfigNorm, ConfigSt, Mvout, Tile
from tilewright.sim.gemmini.normalisation import Normaliser
from tilewright.util.errors import ExecutionError

DIM = 4
SMALL = Configuration(dim=DIM, spad_rows=64, acc_rows=64, max_bytes=8, bus_bytes=4, norm_stats=2)
#: Blocks of columns that a store of int8 takes at once.
WIDE = 2 * DIM


def rows_of(command: int, cols: int, last: int | None = None) -> list[isa.Command]:
    """Stores of row 0 with ``cols`` columns, as many at once as can be; ``last`` is the command of the last one."""
    starts = range(0, cols, WIDE)
    return [
        Mvout(4096, Tile(isa.accumulator(at) | (last if last is not None and at == starts[-1] else command) << 26, min(WIDE, cols - at), 1))
        for at in starts
    ]


def machine(row: np.ndarray) -> Functional:
    """A machine with ``row`` in its accumulator, block after block; main memory starts at 4096."""
    model = Functional(SMALL, MainMemory(256, 4096))
    for at in range(0, len(row), DIM):
        part = row[at : at + DIM]
        model.acc[at, : len(part)] = part
    return model


def written(model: Functional, cols: int) -> list[int]:
    """What plain stores of the row write."""
    out = np.zeros(cols, np.int8)
    for x in rows_of(isa.STORE, cols):
        model.run([x])
        at, n = x.local.row, x.local.cols
        out[at : at + n] = model.memory.array(4096, (n,), np.int8)
    return out.tolist()


def wrap(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def rounded(x: int, factor: np.float32) -> int:
    exact = Fraction(float(np.float32(np.float32(x) * factor)))
    return max(-128, min(127, round(exact)))


def towards_zero(a: int, b: int) -> int:
    return int(Fraction(a, b))


def exponential(q: int, ln2: int, inverse: int, qb: int, qc: int) -> int:
    z = wrap((wrap(-q) * inverse) >> 16)
    poly = wrap(wrap(wrap(q + z * ln2) + qb) ** 2 + qc)
    return wrap((poly % 2**32) >> z) if 0 <= z < 32 else 0


sums = st.integers(-(2**12), 2**12)


@settings(max_examples=40, deadline=None)
@given(st.lists(sums, min_size=1, max_size=20), st.integers(0, 1))
def test_layer_norm(values: list[int], chosen: int) -> None:
    """Mean and deviation lose their fractions, one divided by the other is an f32."""
    model = machine(np.array(values))
    n = len(values)
    model.run([ConfigSt(16, isa.LAYERNORM), ConfigNorm(chosen)])
    model.run([*rows_of(isa.SUM, n, isa.MEAN), *rows_of(isa.VARIANCE, n, isa.INV_STDDEV)])
    mean = towards_zero(sum(values), n)
    squares = wrap(sum(wrap((v - mean) ** 2) for v in values))
    if squares < 0:
        pytest.fail("the drawn values are too large for this test")
    factor = np.float32(1) / np.float32(math.isqrt(squares // n) or 1)
    assert written(model, n) == [rounded(v - mean, factor) for v in values]


CONSTANTS = st.fixed_dictionaries({"ln2": st.integers(1, 400), "qb": st.integers(0, 800), "qc": st.integers(1, 10**6)})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3000, 3000), min_size=DIM + 1, max_size=20), CONSTANTS)
def test_softmax(values: list[int], c: dict[str, int]) -> None:
    """The largest element, the sum of exponentials, and 127 over it as an f32."""
    model = machine(np.array(values))
    n, inverse = len(values), 65536 // c["ln2"]
    at = {"qb": c["qb"], "qc": c["qc"]}
    model.run([ConfigSt(16), ConfigNorm(0, 1, q=c["ln2"], **at), ConfigNorm(0, 1, inverse=1, q=inverse, **at)])
    model.run([*rows_of(isa.MAX, n), *rows_of(isa.SUM_EXP, n, isa.INV_SUM_EXP)])
    each = [exponential(v - max(values), c["ln2"], inverse, c["qb"], c["qc"]) for v in values]
    total = wrap(sum(each))
    assert total > 0
    assert written(model, n) == [rounded(e, np.float32(127) / np.float32(total)) for e in each]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8), st.integers(-(2**20), 0), st.integers(-(2**20), 2**20))
def test_gelu(values: list[int], qb: int, qc: int) -> None:
    model = machine(np.array(values))
    model.run([ConfigSt(16, isa.IGELU, isa.f32_bits(1e-5)), ConfigNorm(qb=qb % 2**32, qc=qc % 2**32)])
    want = []
    for q in values:
        near = min(abs(q) if q > -(2**31) else q, -qb)
        erf = wrap((-1 if q < 0 else 1) * wrap((near + qb) ** 2 + qc))
        want.append(rounded(wrap(q * wrap(erf + qc)), np.float32(1e-5)))
    assert written(model, len(values)) == want


def test_they_are_near_the_functions_that_they_are_named_after() -> None:
    """With the constants of I-BERT: a step of the result is 1/127 for softmax and a few thousandths for GELU."""
    scale = 0.02
    values = np.random.default_rng(3).integers(-300, 300, 16)
    model = machine(values)
    constants = {"qb": int(1.353 / scale), "qc": int(0.344 / (0.3585 * scale**2))}
    ln2 = int(math.log(2) / scale)
    model.run([ConfigSt(16), ConfigNorm(0, 1, q=ln2, **constants), ConfigNorm(0, 1, inverse=1, q=65536 // ln2, **constants)])
    model.run([*rows_of(isa.MAX, 16), *rows_of(isa.SUM_EXP, 16, isa.INV_SUM_EXP)])
    e = np.exp((values - values.max()) * scale)
    assert np.abs(np.array(written(model, 16)) - 127 * e / e.sum()).max() < 2
    a, b, c = -0.2888, -1.769, 1.0
    erf_scale = scale / math.sqrt(2)
    qb, qc = int(b / erf_scale), int(c / (a * erf_scale**2))
    # The parabola is a (x + b)^2 + c: the sums come out in units of scale * a * erf_scale^2 / 2, which is negative.
    unit = scale * a * erf_scale**2 / 2
    values = np.random.default_rng(4).integers(-150, 150, 16)
    model = machine(values)
    model.run([ConfigSt(16, isa.IGELU, isa.f32_bits(unit / 0.03)), ConfigNorm(qb=qb % 2**32, qc=qc % 2**32)])
    x = values * scale
    gelu = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    assert np.abs(np.array(written(model, 16)) * 0.03 - gelu).max() < 0.05


def test_sets_of_statistics_are_apart_and_stores_drop_what_is_under_way() -> None:
    model = machine(np.array([8, 4, 0, 4]))
    model.run([ConfigSt(16, isa.LAYERNORM), ConfigNorm(0), *rows_of(isa.MEAN, 4), *rows_of(isa.INV_STDDEV, 4), ConfigNorm(1)])
    with pytest.raises(ExecutionError, match="a layer norm needs a mean and a standard deviation, which no store made"):
        written(model, 4)
    model.run([ConfigNorm(0), ConfigSt(16)])
    model.run([*rows_of(isa.SUM, 4), *rows_of(isa.STORE, 4), *rows_of(isa.MEAN, 4)])  # without the store the sum would be 32
    assert model.norm is not None and model.norm.sets[0].mean == 4


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([ConfigNorm(2)], "statistics 2 of 2"),
        ([ConfigSt(16, isa.RELU), ConfigNorm(act_msb=1)], "softmax is set after a ConfigSt without activation"),
        ([ConfigSt(16), *rows_of(isa.VARIANCE, 4)], "a variance needs a mean"),
        ([ConfigSt(16), *rows_of(isa.MAX, 4), *rows_of(isa.INV_SUM_EXP, 4)], "needs a sum of exponentials in a store before"),
        ([ConfigSt(16), *rows_of(isa.MAX, 4), *rows_of(isa.SUM_EXP, 4), *rows_of(isa.INV_SUM_EXP, 4)], "exponentials with the sum 0"),
        ([ConfigSt(16, isa.LAYERNORM, 0x3F000000), *rows_of(isa.STORE, 4)], "with a scale: the hardware ignores it"),
        ([ConfigSt(16), Mvout(4096, Tile(isa.accumulator(0, full=True) | isa.SUM << 26, 1, 1))], "statistics are not read in full"),
        (
            [ConfigSt(16, isa.IGELU, pool_stride=1, pool_size=1, porows=1, pocols=1, orows=1, ocols=1), *rows_of(isa.STORE, 4)],
            "pooling does not go with normalisation",
        ),
    ],
)
def test_refusals(program: list[isa.Command], message: str) -> None:
    with pytest.raises(ExecutionError, match=message) as caught:
        machine(np.zeros(4, np.int32)).run(program)
    assert caught.value.hint


def test_variances_beyond_32_bits_and_rows_beyond_16_are_refused() -> None:
    model = machine(np.array([40000, -40000, 0, 0]))
    with pytest.raises(ExecutionError, match="the squares of a variance exceed 32 bits"):
        model.run([ConfigSt(16), *rows_of(isa.MEAN, 4), *rows_of(isa.INV_STDDEV, 4)])
    norm = Normaliser(1)
    norm.gather(np.zeros(65535, np.int32), isa.SUM)
    with pytest.raises(ExecutionError, match="more than 65535 elements"):
        norm.gather(np.zeros(1, np.int32), isa.SUM)


def test_a_declared_machine_has_one_if_it_says_so() -> None:
    assert Configuration.of(load_machine("gemmini")).norm_stats == 0
    assert Configuration.of(gemmini("ibert", control=Control(norm_stats=2))).norm_stats == 2
    with pytest.raises(ExecutionError, match="the cycle model does not run ConfigNorm"):
        simulate([ConfigNorm()], SMALL)
