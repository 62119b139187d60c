"""Dynamic-programming fusion on networks: what joins, what does not, and that results stay what ONNX Runtime computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs
from tests.graph.test_partition import acyclic, connected, divisions

from tilewright import runtime
from tilewright.graph import Graph, Network, compile, load
from tilewright.graph.fusion import Cost, Fusion, fuse, visible
from tilewright.graph.kernels import group_kernel
from tilewright.graph.movement import compose_movements
from tilewright.graph.network import plan_steps
from tilewright.graph.partition import Problem, bits
from tilewright.graph.patterns import Pattern, patterns
from tilewright.graph.roofline import Shape, estimate, regions
from tilewright.hw import Machine, load_machine
from tilewright.ir.stmt import Kernel, allocated
from tilewright.space import Space
from tilewright.space.moves import nearest
from tilewright.space.rules.chain import chains
from tilewright.util.errors import TilewrightError

HOST = Machine.host()


def build(
    nodes: Sequence[object], inputs: dict[str, list[int]], outputs: list[str], weights: dict[str, np.ndarray] | None = None
) -> ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes), "g", [value(n, TensorProto.FLOAT, s) for n, s in inputs.items()], [value(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes: object) -> object:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def weight(*shape: int) -> np.ndarray:
    return (np.random.default_rng(math.prod(shape)).standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def kinds(graph: Graph, method: Fusion = "dp", cost: Cost | None = None) -> list[str]:
    return ["+".join(s.operators) for s in plan_steps(graph, fuse(graph, method, machine=HOST, cost=cost).groups)]


def layer_norm(x: str, out: str) -> list[object]:
    """As exporters before opset 17 write it."""
    return [
        node("ReduceMean", x, f"{out}_m", axes=[-1]), node("Sub", f"{x} {out}_m", f"{out}_c"),
        node("Mul", f"{out}_c {out}_c", f"{out}_q"), node("ReduceMean", f"{out}_q", f"{out}_v", axes=[-1]),
        node("Add", f"{out}_v eps", f"{out}_e"), node("Sqrt", f"{out}_e", f"{out}_s"),
        node("Div", f"{out}_c {out}_s", f"{out}_n"), node("Mul", f"{out}_n g", f"{out}_g"), node("Add", f"{out}_g b", out),
    ]  # fmt: skip


def attention() -> ModelProto:
    """One head group on 40 tokens, with projections, decomposed normalisation and a residual sum."""
    w = {n: weight(32, 32) for n in ("wq", "wk", "wv", "wo")} | {"g": weight(32), "b": weight(32), "eps": np.float32(1e-5).reshape(1)}
    shapes = {"heads": np.asarray([1, 40, 4, 8]), "flat": np.asarray([1, 40, 32]), "root": np.float32(np.sqrt(8)).reshape(1)}
    nodes = layer_norm("x", "n")
    for p in "qkv":
        nodes += [node("MatMul", f"n w{p}", f"{p}m"), node("Reshape", f"{p}m heads", f"{p}h")]
        nodes.append(node("Transpose", f"{p}h", p, perm=[0, 2, 3, 1] if p == "k" else [0, 2, 1, 3]))
    nodes += [
        node("MatMul", "q k", "s"), node("Div", "s root", "d"), node("Softmax", "d", "p", axis=-1), node("MatMul", "p v", "m"),
        node("Transpose", "m", "t", perm=[0, 2, 1, 3]), node("Reshape", "t flat", "f"), node("MatMul", "f wo", "o"),
        node("Add", "x o", "y"),
    ]  # fmt: skip
    return build(nodes, {"x": [1, 40, 32]}, ["y"], w | shapes)


def branches() -> ModelProto:
    """Convolutions whose results are joined, pooled and normalised: what greedy rules leave apart."""
    w = {"a": weight(8, 4, 1, 1), "c": weight(8, 4, 3, 3), "s": np.abs(weight(20)) + 0.5, "z": weight(20)}
    nodes = [
        node("Conv", "x a", "p"), node("Relu", "p", "pr"), node("Conv", "x c", "q", pads=[1] * 4), node("Relu", "q", "qr"),
        node("Concat", "pr qr x", "j", axis=1), node("BatchNormalization", "j s z z s", "n"), node("Relu", "n", "r"),
        node("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2]), node("GlobalAveragePool", "m", "y"),
    ]  # fmt: skip
    return build(nodes, {"x": [1, 4, 12, 12]}, ["y", "r"], w)


@pytest.mark.parametrize("method", [m for m in get_args(Fusion) if m != "measured"])
@pytest.mark.parametrize("model", [attention, branches])
def test_results_are_those_of_onnxruntime(model: Callable[[], ModelProto], method: Fusion) -> None:
    proto = model()
    network = compile(proto, threads=1, fusion=method)
    x = np.random.default_rng(3).standard_normal(network.graph.inputs[0].buffer.static_shape).astype(np.float32)
    for name, want in onnxruntime_outputs(proto, {"x": x}).items():
        np.testing.assert_allclose(network({"x": x})[name], want, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want).max()))


def test_decomposed_normalisation_and_its_neighbours_are_one_kernel() -> None:
    w = {"g": weight(32), "b": weight(32), "eps": np.float32(1e-5).reshape(1)}
    graph = load(build([node("Add", "x z", "a"), *layer_norm("a", "y")], {"x": [64, 32], "z": [64, 32]}, ["y"], w))
    assert len(kinds(graph, "greedy")) > 1
    assert len(kinds(graph)) == 1


def test_softmax_takes_the_scaling_before_it_along() -> None:
    graph = load(
        build([node("Mul", "x z", "a"), node("Softmax", "a", "s"), node("Mul", "s z", "y")], {"x": [64, 48], "z": [64, 48]}, ["y"])
    )
    assert kinds(graph) == ["Mul+Softmax+Mul"]


def test_transpositions_join_the_product_that_reads_or_makes_them() -> None:
    graph = compose_movements(load(attention()))
    made = kinds(graph)
    # v is read where it is, and the result written where it is wanted
    assert "Transpose+Transpose+MatMul+Div+Softmax+MatMul+Transpose" in made
    assert len(made) < len(kinds(graph, "greedy")) < len(kinds(graph, "none"))


def heads(tokens: int, mask: bool = False) -> ModelProto:
    """softmax(q k^T / 4 + mask) v for three heads of width 16."""
    nodes = [
        node("MatMul", "q k", "s"), node("Div", "s root", "d"), *([node("Add", "d m", "z")] if mask else []),
        node("Softmax", "z" if mask else "d", "p", axis=-1), node("MatMul", "p v", "y"),
    ]  # fmt: skip
    shapes = {"q": [1, 3, tokens, 16], "k": [1, 3, 16, tokens], "v": [1, 3, tokens, 16]} | ({"m": [tokens, tokens]} if mask else {})
    return build(nodes, shapes, ["y"], {"root": np.float32(4).reshape(1)})


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_attention_is_one_kernel_and_agrees_with_onnxruntime(threads: int, mask: bool) -> None:
    proto = heads(157, mask)
    assert kinds(load(proto)) == ["MatMul+Div+" + ("Add+" if mask else "") + "Softmax+MatMul"]
    network = compile(proto, threads=threads, fusion="dp")
    rng = np.random.default_rng(7)
    shapes = {"q": (1, 3, 157, 16), "k": (1, 3, 16, 157), "v": (1, 3, 157, 16)}
    inputs = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    if mask:
        inputs["m"] = np.triu(np.full((157, 157), -np.inf, np.float32), 1)  # no query sees later keys
    (want,) = onnxruntime_outputs(proto, inputs).values()
    np.testing.assert_allclose(network(inputs)["y"], want, rtol=1e-4, atol=1e-5)


def group_of(proto: ModelProto, *members: int) -> Kernel:
    """The operations at the given positions (default: all) as one kernel."""
    graph = load(proto)
    operations = [graph.operations[i] for i in members or range(len(graph.operations))]
    return group_kernel(operations, graph.buffers, frozenset(operations[-1].outputs)).kernel


def test_imported_attention_sees_blocks_of_keys() -> None:
    """Softmax divides before the second product; the factor of a row moves behind it."""
    machine = Machine.host()
    kernel = group_of(heads(600))
    space = Space(kernel, machine, threads=1, rules=[chains])
    number = next(n for n, s in enumerate(space.sketches) if "at a time" in s.name)
    plan = space.plan(nearest(space, number, {}))
    assert plan.refused == ()
    runtime.check(runtime.build(plan.schedule, machine, threads=1, cache=False), kernel, trials=1)


def test_scores_of_an_attention_are_not_priced_as_memory_traffic() -> None:
    machine = load_machine("x86.avx512")
    kernel = group_of(heads(512))
    (region,) = regions(kernel, machine)
    assert region.shape is Shape.CHAIN and region.again == {b.name for b in kernel.args if b.name in ("x_1", "x_2")}
    alone = sum(estimate(group_of(heads(512), *members), machine, 1) for members in ((0,), (1, 2), (3,)))
    moved = 3 * 512 * 512 * 4 * 4  # scores and weights, each written and read again
    assert alone - estimate(kernel, machine, 1) > machine.seconds(moved / 64)  # at no more than a register a cycle


def test_rows_too_long_for_a_core_are_no_chain() -> None:
    machine = load_machine("x86.avx512")
    small = replace(machine, memories=tuple(replace(m, bytes=4096) if m.name in ("l1", "l2") else m for m in machine.memories))
    kernel = group_of(heads(512))
    assert Shape.CHAIN not in {r.shape for r in regions(kernel, small)}
    assert estimate(kernel, small, 1) > estimate(kernel, machine, 1)


def test_with_a_price_that_favours_it_attention_is_one_kernel() -> None:
    def price(kernel: Kernel, constants: frozenset[str]) -> float:
        found = regions(kernel)
        tiles = sum(r.shape is Shape.TILE for r in found)
        return 1e-6 if tiles == 2 and any(r.shape is Shape.ROWS for r in found) else 1e-5 * len(found)

    made = kinds(load(attention()), cost=price)
    assert any(k.count("MatMul") == 2 and "Div+Softmax" in k for k in made), made


def test_two_products_are_never_joined_without_a_reduction_between() -> None:
    nodes = [node("MatMul", "x a", "m"), node("Relu", "m", "r"), node("MatMul", "r c", "y")]
    graph = load(build(nodes, {"x": [8, 8]}, ["y"], {"a": weight(8, 8), "c": weight(8, 8)}))
    assert all(k.count("MatMul") < 2 for k in kinds(graph, cost=lambda kernel, constants: 1.0))


def test_patterns_come_from_the_nests() -> None:
    nodes = [
        node("MatMul", "x a", "m"), node("Relu", "m", "r"), node("Transpose", "r", "t"), node("Softmax", "t", "s"),
        node("LayerNormalization", "s g", "n"), node("CumSum", "n axis", "y"),
    ]  # fmt: skip
    graph = load(build(nodes, {"x": [8, 8]}, ["y"], {"a": weight(8, 8), "g": weight(8), "axis": np.asarray(0)}))
    expected = [Pattern.CONTRACTION, Pattern.ELEMENT_WISE, Pattern.INJECTIVE, Pattern.REDUCTION, Pattern.REDUCTION]
    assert patterns(graph)[:5] == expected


def test_prices_are_asked_once_for_each_structure() -> None:
    asked: list[Kernel] = []

    def price(kernel: Kernel, constants: frozenset[str]) -> float:
        asked.append(kernel)
        return estimate(kernel, HOST, 1, constants)

    def deep(layers: int) -> Graph:
        nodes, x = [], "x"
        for k in range(layers):
            nodes += [node("MatMul", f"{x} w{k}", f"m{k}"), node("Relu", f"m{k}", f"r{k}")]
            x = f"r{k}"
        return load(build(nodes, {"x": [16, 16]}, [x], {f"w{k}": weight(16, 16) for k in range(layers)}))

    assert set(kinds(deep(12), cost=price)) == {"MatMul+Relu"}
    assert len(asked) == len(set(asked))
    few = len(asked)
    asked.clear()
    kinds(deep(24), cost=price)
    assert len(asked) == few


def test_beam_is_reported() -> None:
    wide = [node("Relu", "x", "r"), *(n for k in range(6) for n in (node("MatMul", "r a", f"m{k}"), node("Relu", f"m{k}", f"y{k}")))]
    graph = load(build(wide, {"x": [4, 4]}, [f"y{k}" for k in range(6)], {"a": weight(4, 4)}))
    assert fuse(graph, "dp", machine=HOST).exact
    narrow = fuse(graph, "dp", machine=HOST, width=1)
    assert narrow.exact or "beam" in str(narrow)
    assert sorted(i for g in narrow.groups for i in g) == list(range(13))


def test_unknown_method_is_refused_with_those_there_are() -> None:
    graph = load(build([node("Relu", "x", "y")], {"x": [4]}, ["y"]))
    with pytest.raises(TilewrightError, match="unknown fusion 'all'") as refused:
        fuse(graph, "all")  # type: ignore[arg-type]
    assert "greedy" in str(refused.value.hint)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_plan_costs_what_the_best_of_all_legal_divisions_costs(data: st.DataObject) -> None:
    graph = random_graph(data, 6)
    plan = fuse(graph, "dp", machine=HOST)
    outputs = {graph.storage(v.buffer.name) for v in graph.outputs}
    consumers, number = graph.consumers(), len(graph.operations)
    producer = {n: i for i, o in enumerate(graph.operations) for n in o.outputs}
    successors = [sum({1 << c for n in o.outputs for c in consumers.get(n, ())}) for o in graph.operations]
    shape = Problem(successors, lambda i, j: True, lambda g: True, lambda g: 0.0)
    found = patterns(graph)

    def legal(group: int) -> bool:
        members = list(bits(group))
        if len(members) > 1 and not connected(shape, group):
            return False
        inner = [(i, n) for i in members for n in graph.operations[i].inputs if producer.get(graph.storage(n)) in members]
        into = [n for i, n in inner if found[i] is Pattern.CONTRACTION]
        return (
            all(n not in graph.views for _, n in inner)
            and sum(found[i] is Pattern.CONTRACTION for i in members) <= 1
            and all(len(consumers[n]) == 1 and n not in outputs for n in into)
            and (len(members) == 1 or all(found[i] is not Pattern.OPAQUE for i in members))
        )

    def price(group: int) -> float:
        members = list(bits(group))
        operations = [graph.operations[i] for i in members]
        kernel = group_kernel(operations, graph.buffers, visible(graph, members, consumers, outputs)).kernel
        return estimate(kernel, HOST, 1)

    divided = (d for d in divisions(list(range(number))) if all(map(legal, d)) and acyclic(shape, d))
    assert plan.seconds is not None
    assert plan.seconds <= min(sum(map(price, d)) for d in divided) + 1e-11 * number
    assert plan.seconds == pytest.approx(sum(price(sum(1 << i for i in g)) for g in plan.groups), abs=1e-11 * number)


def random_graph(data: st.DataObject, most: int) -> Graph:
    names, nodes = ["x"], []
    for k in range(data.draw(st.integers(2, most))):
        kind = data.draw(st.sampled_from(["MatMul", "Add", "Tanh", "Transpose", "Softmax", "ReduceSum"]))
        first, second = data.draw(st.sampled_from(names[-3:])), data.draw(st.sampled_from(names))
        nodes.append(
            node(kind, f"{first} {second}" if kind in ("MatMul", "Add") else first, f"t{k}", **({"axis": -1} if kind == "Softmax" else {}))
        )
        if kind == "ReduceSum":
            nodes[-1] = node("Mul", f"{first} {second}", f"t{k}")
        names.append(f"t{k}")
    return load(build(nodes, {"x": [12, 12]}, [names[-1]]))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_networks_keep_their_meaning(data: st.DataObject) -> None:
    graph = random_graph(data, 12)
    x = {"x": np.random.default_rng(data.draw(st.integers(0, 99))).uniform(-1, 1, (12, 12)).astype(np.float32)}
    want = Network.interpreted(graph, fusion="none").reference(x)
    moved = compose_movements(graph)
    assert len(moved.operations) <= len(graph.operations)
    for name, got in Network.interpreted(moved, fusion="dp").reference(x).items():
        np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want[name]).max()))


def test_chains_of_moves_become_one() -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Gather", "t two", "g", axis=0),
        node("Transpose", "g", "u"),
        node("Neg", "u", "y"),
    ]
    graph = load(build(nodes, {"x": [4, 5, 6]}, ["y"], {"two": np.asarray(2)}))
    moved = compose_movements(graph)
    assert [o.kind for o in moved.operations] == ["Transpose", "Neg"]
    x = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(Network.interpreted(moved).reference({"x": x})["y"], -x.transpose(1, 0, 2)[2].T)


def test_unused_statistics_are_not_computed() -> None:
    graph = load(build([node("LayerNormalization", "x g", "y")], {"x": [8, 16]}, ["y"], {"g": weight(16)}))
    (step,) = plan_steps(graph)
    assert [b.static_shape for b in step.call.kernel.args] == [(8, 16), (16,), (8, 16)]
    assert len(allocated(step.call.kernel)) >= 2  # mean and variance stay inside
