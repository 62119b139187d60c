"""Chains of contractions in blocks of rows: where they are seen, and that every block of every sketch computes the kernel."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.schedule.programs import assert_same

from tilewright import lang
from tilewright.hw import Machine, load_machine
from tilewright.ir import stmt as st
from tilewright.ir.expr import binary, const, intrinsic
from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.ir.types import f32
from tilewright.lang import parse
from tilewright.runtime import build, check
from tilewright.schedule import replay
from tilewright.space import Space
from tilewright.space.best import first
from tilewright.space.chains import Chain, chain_of
from tilewright.space.context import Context
from tilewright.space.moves import nearest
from tilewright.space.rules.chain import chains


@pytest.fixture(scope="module")
def host() -> Machine:
    return Machine.host()


@pytest.fixture(scope="module")
def avx512() -> Machine:
    return load_machine("x86.avx512")


def attention(heads: int, queries: int, keys: int, width: int, mask: bool = False, heads_inside: bool = False) -> Kernel:
    """softmax(Q K^T / sqrt(width) + mask) V; the result ``[query, head, :]`` with ``heads_inside``."""
    q, k, v = (lang.tensor(n, f32, (heads, t, width)) for n, t in (("q", queries), ("k", keys), ("v", keys)))
    m = lang.tensor("m", f32, (queries, keys))
    d, a, b, c = (lang.reduce_axis(0, n, name) for name, n in (("d", width), ("a", keys), ("b", keys), ("c", keys)))
    square, rows = (heads, queries, keys), (heads, queries)
    dots = lang.compute("dots", square, lambda h, i, j: lang.sum(q[h, i, d] * k[h, j, d], d))
    if mask:
        scores = lang.compute("scores", square, lambda h, i, j: dots[h, i, j] * width**-0.5 + m[i, j])
    else:
        scores = lang.compute("scores", square, lambda h, i, j: dots[h, i, j] * width**-0.5)
    peak = lang.compute("peak", rows, lambda h, i: lang.max(scores[h, i, a], a))
    powers = lang.compute("powers", square, lambda h, i, j: intrinsic("exp", scores[h, i, j] - peak[h, i]))
    total = lang.compute("total", rows, lambda h, i: lang.sum(powers[h, i, b], b))
    mixed = lang.compute("mixed", (heads, queries, width), lambda h, i, e: lang.sum(powers[h, i, c] * v[h, c, e], c))
    if heads_inside:
        out = lang.compute("y", (queries, heads, width), lambda i, h, e: mixed[h, i, e] / total[h, i])
    else:
        out = lang.compute("y", (heads, queries, width), lambda h, i, e: mixed[h, i, e] / total[h, i])
    return lang.build("attention", [q, k, v, *([m] if mask else [])], [out])


def shared_out(heads: int, queries: int, keys: int, width: int, divided: bool = False) -> Kernel:
    """As importers write it: weights that sum to one, times the values."""
    q, k, v = (lang.tensor(n, f32, (heads, t, width)) for n, t in (("q", queries), ("k", keys), ("v", keys)))
    d, a, b, c = (lang.reduce_axis(0, n, name) for name, n in (("d", width), ("a", keys), ("b", keys), ("c", keys)))
    square, rows = (heads, queries, keys), (heads, queries)
    dots = lang.compute("dots", square, lambda h, i, j: lang.sum(q[h, i, d] * k[h, j, d], d))
    peak = lang.compute("peak", rows, lambda h, i: lang.max(dots[h, i, a], a))
    powers = lang.compute("powers", square, lambda h, i, j: intrinsic("exp", (dots[h, i, j] - peak[h, i]) * width**-0.5))
    total = lang.compute("total", rows, lambda h, i: lang.sum(powers[h, i, b], b))
    share = lang.compute("share", rows, lambda h, i: 1.0 / total[h, i])
    weights = lang.compute("weights", square, lambda h, i, j: powers[h, i, j] / total[h, i] if divided else powers[h, i, j] * share[h, i])
    mixed = lang.compute("mixed", (heads, queries, width), lambda h, i, e: lang.sum(weights[h, i, c] * v[h, c, e], c))
    return lang.build("shared", [q, k, v], [mixed])


def perceptron(rows: int, inner: int, width: int) -> Kernel:
    """Two layers; the second sum is the result itself."""
    x, a, b = lang.tensor("x", f32, (rows, width)), lang.tensor("a", f32, (width, inner)), lang.tensor("b", f32, (inner, width))
    hidden = lang.einsum("ik,kj->ij", x, a, name="hidden")
    active = lang.compute("active", (rows, inner), lambda i, j: binary("max", hidden[i, j], const(0.0, f32)))
    return lang.build("perceptron", [x, a, b], [lang.einsum("ij,jk->ik", active, b, name="y")])


def found(kernel: Kernel, machine: Machine) -> Chain | None:
    context = Context.of(kernel, machine, 1, ())
    return chain_of(context.stages, {b.name for b in st.allocated(context.base.kernel)})


# --- where chains are -----------------------------------------------------------------------------


def test_an_attention_is_a_chain_over_heads_and_queries(avx512: Machine) -> None:
    chain = found(attention(3, 20, 24, 8), avx512)
    assert chain is not None
    assert len(chain.links) == 2 and len(chain.batch) == 1
    assert chain.row.dims["scores"] == 1 and chain.batch[0].dims["scores"] == 0  # queries are blocked, not keys
    assert set(chain.local) == {"dots", "scores", "peak", "powers", "total", "mixed"}


def test_two_layers_are_a_chain(avx512: Machine) -> None:
    chain = found(perceptron(20, 64, 16), avx512)
    assert chain is not None and chain.batch == () and chain.row.dims["hidden"] == 0


def test_one_contraction_is_no_chain(avx512: Machine) -> None:
    x, w = lang.tensor("x", f32, (20, 16)), lang.tensor("w", f32, (16, 24))
    made = lang.einsum("ik,kj->ij", x, w, name="made")
    kernel = lang.build("one", [x, w], [lang.compute("y", (20, 24), lambda i, j: made[i, j] * 2.0)])
    assert found(kernel, avx512) is None


def test_products_that_do_not_need_each_other_are_no_chain(avx512: Machine) -> None:
    x, w, u = lang.tensor("x", f32, (20, 16)), lang.tensor("w", f32, (16, 24)), lang.tensor("u", f32, (16, 24))
    a, b = lang.einsum("ik,kj->ij", x, w, name="a"), lang.einsum("ik,kj->ij", x, u, name="b")
    kernel = lang.build("gated", [x, w, u], [lang.compute("y", (20, 24), lambda i, j: a[i, j] * b[i, j])])
    assert found(kernel, avx512) is None


def test_what_is_blocked_are_the_loops_that_both_products_share(avx512: Machine) -> None:
    """x (x^T y): a row of the result needs all of the first product, a column only one column of it."""
    x, y = lang.tensor("x", f32, (20, 16)), lang.tensor("y", f32, (20, 24))
    inner = lang.einsum("ki,kj->ij", x, y, name="inner")
    chain = found(lang.build("normal", [x, y], [lang.einsum("ki,ij->kj", x, inner, name="z")]), avx512)
    assert chain is not None and chain.batch == () and chain.row.dims["inner"] == 1


def test_a_softmax_over_the_other_side_has_no_rows_to_block(avx512: Machine) -> None:
    """Normalised over queries: a row of the result needs the sums of all rows."""
    q, k, v = (lang.tensor(n, f32, (20, 8)) for n in "qkv")
    a = lang.reduce_axis(0, 20, "a")
    scores = lang.einsum("id,jd->ij", q, k, name="scores")
    total = lang.compute("total", (20,), lambda j: lang.sum(scores[a, j], a))
    share = lang.compute("share", (20, 20), lambda i, j: scores[i, j] / total[j])
    assert found(lang.build("columns", [q, k, v], [lang.einsum("ij,je->ie", share, v, name="y")]), avx512) is None


# --- what is made of them ---------------------------------------------------------------------------


KERNELS = {
    "attention": attention(2, 37, 41, 24),
    "one head": attention(1, 33, 20, 17),
    "mask": attention(2, 21, 37, 16, mask=True),
    "heads inside": attention(3, 18, 35, 16, heads_inside=True),
    "perceptron": perceptron(37, 50, 20),
    "long rows": attention(1, 13, 520, 16, mask=True),
    "shared out": shared_out(2, 21, 37, 16),
    "long rows shared out": shared_out(1, 13, 520, 16),
}


def liked_first(space: Space, number: int) -> np.ndarray:
    """The first of the points among which a default is looked for in a sketch (any point where there are none)."""
    sketch = space.sketches[number]
    return nearest(space, number, first(sketch, (sketch.likely and sketch.likely()) or []))


@pytest.mark.parametrize(("number", "name"), list(enumerate(KERNELS)))
def test_schedules_compute_the_kernel(host: Machine, number: int, name: str) -> None:
    kernel, threads = KERNELS[name], 1 + number % 2
    space = Space(kernel, host, threads=threads, rules=[chains])
    rng = np.random.default_rng(len(name) + threads)
    points = space.sample(24, rng)
    # Each structure's own choice where it has one, and a point of the last structure.
    chosen = [points[rows[0]] for _, rows in space.groups(points)][-1:]
    liked = [liked_first(space, n) for n in range(len(space.sketches))]
    for p in [*liked, *chosen]:
        plan = space.plan(p)
        assert plan.refused == ()
        check(build(plan.schedule, host, threads=threads, cache=False), kernel, trials=1)


def test_the_interpreter_agrees(host: Machine) -> None:
    kernel = attention(2, 11, 9, 5)
    space = Space(kernel, host, threads=2, rules=[chains])
    for p in space.sample(3, np.random.default_rng(5)):
        assert_same(kernel, space.schedule(p).kernel)
        assert replay(kernel, space.trace(p)).kernel == space.schedule(p).kernel


def test_scores_are_scaled_in_the_exponent_where_their_factor_is_positive(avx512: Machine) -> None:
    def scheduled(kernel: Kernel) -> str:
        space = Space(kernel, avx512, threads=1, rules=[chains])
        return str(space.schedule(liked_first(space, 0)).kernel)

    scaled, kernel = scheduled(attention(2, 24, 64, 16)), str(attention(2, 24, 64, 16))
    assert "scores" not in scaled and ") * 0.25)" in scaled
    assert "scores" in scheduled(attention(2, 24, 64, 16, mask=True))
    assert "scores" in scheduled(parse(kernel.replace("* 0.25", "* -0.25")))


def test_weights_are_stored_in_vector_order_ahead_of_time(host: Machine) -> None:
    space = Space(KERNELS["perceptron"], host, threads=1, constants=["a", "b"], rules=[chains])
    plan = space.plan(space.default())
    args = {b.name: b for b in plan.schedule.kernel.args}
    assert plan.refused == () and args["a"].layout is not None
    check(build(plan.schedule, host, threads=1, cache=False), space.kernel, trials=1)


def test_values_inside_are_those_of_one_block(avx512: Machine) -> None:
    space = Space(attention(4, 256, 512, 64), avx512, threads=1, rules=[chains])
    p = space.default()
    sizes = {b.name: b.nbytes for b in st.allocated(space.schedule(p).kernel) if b.memory == "dram"}
    keys = sizes["dots"] / (space.values(p)["block"] * 4)
    assert keys in (256, 512), "all keys, or those that the softmax looks at together"
    assert sizes["dots"] + sizes["powers"] <= avx512.memory("l2").bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_the_symbolic_program_is_the_kernel_where_blocks_divide(avx512: Machine, threads: int) -> None:
    kernel = attention(2, 32, 32, 32)
    space = Space(kernel, avx512, threads=threads, rules=[chains])
    for number, sketch in enumerate(space.sketches):
        values = {k.name: max(v for v in k.values if 32 % v == 0 and (k.name != "partials" or v == 1)) for k in sketch.knobs}
        values |= {"block": 16, "dots_width": 16, "dots_rows": 4, "mixed_width": 32, "mixed_rows": 8}
        assert space.valid(np.array([[number, *(values[k.name] for k in sketch.knobs)]]))[0]
        assert_same(kernel, st.specialize(sketch.program, **values))


def test_the_symbolic_program_in_blocks_of_keys_is_the_kernel_where_they_divide(avx512: Machine) -> None:
    kernel = attention(2, 8, 512, 16, mask=True)
    space = Space(kernel, avx512, threads=1, rules=[chains])
    found = [s for s in space.sketches if "at a time" in s.name]
    assert found
    values = {"block": 4, "dots_width": 32, "dots_rows": 2, "mixed_width": 16, "mixed_rows": 4, "partials": 1}
    assert_same(kernel, st.specialize(found[0].program, **values))


@pytest.mark.parametrize("keys", [512, 601])
def test_masked_keys_and_whole_blocks_of_them(host: Machine, keys: int) -> None:
    """-inf in the mask: no query sees later keys, so the first rows see nothing of most blocks; one row sees nothing at all."""
    kernel = attention(2, 24, keys, 16, mask=True)
    space = Space(kernel, host, threads=1, rules=[chains])
    rng = np.random.default_rng(keys)
    q, k, v = (rng.standard_normal((2, t, 16)).astype(np.float32) for t in (24, keys, keys))
    mask = np.triu(np.full((24, keys), -np.inf, np.float32), 30)
    mask[:, : keys // 2][::3] = -np.inf
    mask[7] = -np.inf
    with np.errstate(invalid="ignore"):
        scores = np.einsum("hid,hjd->hij", q, k).astype(np.float64) / 4 + mask
        e = np.exp(scores - scores.max(axis=2, keepdims=True))
        want = np.einsum("hij,hjd->hid", e / e.sum(axis=2, keepdims=True), v)
    for number in range(len(space.sketches)):
        plan = space.plan(liked_first(space, number))
        assert plan.refused == ()
        out = np.zeros((2, 24, 16), np.float32)
        build(plan.schedule, host, threads=1, cache=False)(q, k, v, mask, out=out)
        np.testing.assert_allclose(out, want, rtol=2e-4, atol=1e-5)


def test_memory_of_a_block_does_not_grow_with_the_row(avx512: Machine) -> None:
    def inside(tokens: int) -> int:
        space = Space(attention(1, tokens, tokens, 64), avx512, threads=1, rules=[chains])
        number = next(n for n, s in enumerate(space.sketches) if "at a time" in s.name)
        p = nearest(space, number, {**space.values(liked_first(space, number)), "block": 64})
        buffers = st.allocated(space.schedule(p).kernel)
        return max(b.nbytes for b in buffers if b.name.startswith(("dots", "scores", "powers")))

    assert inside(4096) == inside(2048) == 64 * 256 * 4


def test_heads_are_divided_among_threads_and_blocks_where_there_are_too_few(avx512: Machine) -> None:
    def divided(heads: int) -> str:
        space = Space(attention(heads, 96, 64, 16), avx512, threads=2, rules=[chains])
        root = next(s for s in reversed(space.schedule(space.default()).kernel.body.stmts) if isinstance(s, st.For))
        assert root.kind is LoopKind.PARALLEL
        return str(root.extent)

    assert divided(4) == "4"
    assert int(divided(1)) >= 2


def test_heads_are_divided_whatever_the_block(avx512: Machine) -> None:
    """Also where one block is whole: its loop has one trip and goes, the loop over heads around it stays divided."""
    space = Space(attention(12, 97, 64, 16), avx512, threads=2, rules=[chains])
    of_block = {space.values(p)["block"]: p for p in space.sample(300, np.random.default_rng(0))}
    assert max(of_block) > 97 // 2
    for block in [*sorted(of_block)[:2], max(of_block)]:
        roots = [f for f in space.schedule(of_block[block]).kernel.body.stmts if isinstance(f, st.For)]
        assert any(f.kind is LoopKind.PARALLEL and str(f.extent) == "12" for f in roots), block


def test_buffers_that_are_called_like_copies_of_a_tile_are_not_its_tiles(host: Machine) -> None:
    """As importers name a second product: ``dots_1`` is no remainder of ``dots``."""
    named = parse(re.sub(r"\bmixed\b", "dots_1", str(attention(2, 66, 197, 64))))
    space = Space(named, host, threads=1, rules=[chains])
    for point in [space.default(), *space.sample(4, np.random.default_rng(0))]:
        plan = space.plan(point)
        assert not plan.refused
        check(build(plan.schedule, host, threads=1, cache=False), named, trials=1)


def test_the_default_of_the_whole_space_is_the_cheaper_by_estimate(avx512: Machine) -> None:
    for tokens in (64, 1024):
        space = Space(attention(12, tokens, tokens, 64), avx512, threads=1)
        blocked = np.stack([p for n in range(len(space.sketches)) if "block" in space.values(p := liked_first(space, n))])
        assert space.estimate(space.default()[None])[0] <= space.estimate(blocked).min() * 1.02
    assert "block" in space.values(space.default())  # the scores of a head are larger than the caches


@pytest.mark.parametrize("divided", [False, True])
def test_a_softmax_that_is_divided_first_sees_blocks_of_keys_too(host: Machine, divided: bool) -> None:
    kernel = shared_out(1, 9, 517, 16, divided)
    space = Space(kernel, host, threads=1, rules=[chains])
    number = next(n for n, s in enumerate(space.sketches) if "at a time" in s.name)
    plan = space.plan(liked_first(space, number))
    assert plan.refused == () and not [b for b in st.allocated(plan.schedule.kernel) if b.name.startswith("weights")]
    check(build(plan.schedule, host, threads=1, cache=False), kernel, trials=1)


def test_rows_inside_begin_at_whole_vectors(avx512: Machine) -> None:
    space = Space(attention(2, 66, 197, 64), avx512, threads=1, rules=[chains])
    layouts = {b.name: str(b.layout) for b in st.allocated(space.schedule(space.default()).kernel) if b.layout is not None}
    assert layouts["dots"] == "0 1 2/16 2" and layouts["powers"] == "0 1 2/16 2"
