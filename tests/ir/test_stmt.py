"""Walking, rewriting and specialising statements."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from tests.ir.strategies import kernels

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Const, Var
from tilewright.ir.stmt import (
    Kernel,
    Store,
    all_buffers,
    block,
    find_loop,
    map_exprs,
    map_stmts,
    read_buffers,
    replace_buffers,
    specialize,
    store,
    walk,
    written_buffers,
)
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.util.errors import IRTypeError

TEXT = """
@kernel(params=("M", "N"))
def add(x: f32[M, N], y: f32[N]):
    t = alloc(f32[N])
    for j in range(N):
        t[j] = y[j] * 2.0
    for i in range(M):
        for j_1 in range(N):
            x[i, j_1] += t[j_1]
"""


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(kernels())
def test_rewrites_that_change_nothing_return_the_same_objects(k: Kernel) -> None:
    assert map_stmts(k.body, lambda s: None) is k.body
    assert map_exprs(k.body, lambda e: e) == k.body
    assert replace_buffers(k.body, {b.name: b for b in all_buffers(k)}) == k.body


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(kernels())
def test_replacing_buffers_reaches_every_mention(k: Kernel) -> None:
    moved = {b.name: b.with_(memory="elsewhere") for b in all_buffers(k)}
    verify(k.with_(args=tuple(moved[b.name] for b in k.args), body=replace_buffers(k.body, moved)))


def test_a_statement_can_become_several() -> None:
    k = parse(TEXT)
    twice = map_stmts(k.body, lambda s: (s, s) if isinstance(s, Store) and s.op else None)
    assert sum(isinstance(s, Store) for s in walk(twice)) == 3


def test_effects() -> None:
    k = parse(TEXT)
    assert written_buffers(k.body) == {"t", "x"}
    assert read_buffers(k.body) == {"t", "x", "y"}
    assert find_loop(k, "j_1").extent == Var("N")
    with pytest.raises(IRTypeError, match=r"has no loop 'z'[\s\S]*loops: j, i, j_1"):
        find_loop(k, "z")


def test_specialising_binds_sizes_everywhere() -> None:
    k = specialize(parse(TEXT), N=8)
    verify(k)
    assert [v.name for v in k.sizes] == ["M"]
    assert find_loop(k, "j").hi == Const(8, ty.index)
    assert k.arg("y").static_shape == (8,)
    with pytest.raises(IRTypeError, match="has no size 'K'"):
        specialize(k, K=3)
    with pytest.raises(IRTypeError, match="must be an int >= 0"):
        specialize(k, M=-1)


def test_blocks_flatten_unless_they_declare() -> None:
    n = buffer("n", ty.i8, ())
    s = store(n[()], 1)
    assert block(block(s), s).stmts == (s, s)
    scoped = parse("@kernel\ndef f(n: i8):\n    with block():\n        t: i8 = 1\n        n = t\n").body
    assert block(*scoped.stmts) == scoped


def test_only_reductions_may_be_stored_with_an_operator() -> None:
    n = buffer("n", ty.i8, ())
    with pytest.raises(IRTypeError, match="-= is not a reduction"):
        store(n[()], 1, "-")
    assert store(n[()], ex.binary("max", n[()], 3)).op == "max"
