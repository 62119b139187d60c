"""Parts of a space: one structure for each mapping, or one mapping."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from benchmarks.workloads import batched, softmax

from tilewright.hw import load_machine
from tilewright.ir.interpreter import interpret
from tilewright.lang import parse
from tilewright.space.narrow import OneMapping, PlainTiles
from tilewright.space.rule import discover
from tilewright.space.space import Space
from tilewright.util.errors import SpaceError


def whole_and(narrow, workload) -> tuple[Space, Space]:  # type: ignore[no-untyped-def]
    machine, kernel = load_machine("x86.avx512"), workload.kernel()
    return Space(kernel, machine, 1), Space(kernel, machine, 1, rules=[narrow(discover())])


def test_plain_tiles_have_one_structure_for_each_mapping() -> None:
    whole, part = whole_and(PlainTiles, batched(2, 64, 48, 96))
    assert {s.mapping for s in part.sketches} == {s.mapping for s in whole.sketches}
    assert len(part.sketches) == len({s.mapping for s in part.sketches}) < len(whole.sketches)
    for s in part.sketches:
        rivals = [x for x in whole.sketches if x.mapping == s.mapping]
        assert s.name in {x.name for x in rivals}
        assert len(s.extras) == min(len(x.extras) for x in rivals)
    assert any("copy" in e for s in whole.sketches for e in s.extras)
    assert part.size < whole.size


def test_a_fixed_mapping_is_that_of_the_default() -> None:
    whole, part = whole_and(OneMapping, batched(2, 64, 48, 96))
    chosen = whole.sketch(whole.default()).mapping
    assert {s.name for s in part.sketches} == {s.name for s in whole.sketches if s.mapping == chosen}
    assert 1 < len(part.sketches) < len(whole.sketches)
    assert part.describe(part.default()) == whole.describe(whole.default())


def test_rows_keep_their_only_sketch() -> None:
    for narrow in (PlainTiles, OneMapping):
        whole, part = whole_and(narrow, softmax(32, 64))
        assert [s.name for s in part.sketches] == [s.name for s in whole.sketches]


def test_points_of_a_part_compute_the_same() -> None:
    kernel = parse("""
@kernel
def gemm(a: f32[13, 7], b: f32[7, 40], c: f32[13, 40]):
    for i in range(13):
        for j in range(40):
            c[i, j] = 0.0
    for i1 in range(13):
        for j1 in range(40):
            for k in range(7):
                c[i1, j1] += a[i1, k] * b[k, j1]
""")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((13, 7)).astype(np.float32), rng.standard_normal((7, 40)).astype(np.float32)
    for narrow in (PlainTiles, OneMapping):
        space = Space(kernel, load_machine("x86.avx512"), 1, rules=[narrow(discover())])
        point = space.sample(1, rng)[0]
        c = np.zeros((13, 40), np.float32)
        interpret(space.schedule(point).kernel, {"a": a, "b": b, "c": c})
        np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


def test_nothing_comes_of_no_rule() -> None:
    for narrow in (PlainTiles, OneMapping):
        with pytest.raises(SpaceError, match="no rule has a schedule"):
            Space(batched(1, 8, 8, 8).kernel(), rules=[narrow(())])


def test_parts_are_the_same_in_the_processes_that_build() -> None:
    for narrow in (PlainTiles, OneMapping):
        rule = narrow(discover())
        assert pickle.loads(pickle.dumps(rule)) == rule and hash(pickle.loads(pickle.dumps(rule))) == hash(rule)
