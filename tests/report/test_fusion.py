"""The drawing of a fusion plan: every operator once, in the box of its kernel, below what it depends on."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from examples.vit import ViTConfig, vit
from hypothesis import given
from hypothesis import strategies as st
from tests.report.document import Element, exact, parse, table_of
from tests.report.sessions import search

from tilewright.graph.compiler import prepare
from tilewright.graph.importer import load
from tilewright.graph.network import Network
from tilewright.hw import load_machine
from tilewright.report import fusion, page, write
from tilewright.report.fusion import Box, dependences, lay_out
from tilewright.runtime.records import RecordStore, Session, Task


@pytest.fixture(scope="module")
def network() -> Network:
    model = vit(ViTConfig(image=16, patch=8, width=16, heads=2, mlp=24, layers=2, classes=5))
    prepared = prepare(load(model.SerializeToString(), dims={"batch": 1}), load_machine("x86.avx2"), threads=1)
    return Network(prepared.graph, prepared.steps, fusion=prepared.fusion)


def tasks_of(network: Network) -> list[Task]:
    """The distinct tasks of a network, as tuning would name them."""
    out = {}
    for step in network.steps:
        places = {b.name: network.graph.storage(name) for b, name in zip(step.call.kernel.args, step.call.arguments, strict=True)}
        constants = [name for name, storage in places.items() if storage in network.graph.constants]
        inputs = {network.graph.storage(v.buffer.name) for v in network.graph.inputs}
        task = Task.of(step.call.kernel, load_machine("x86.avx2"), 1, constants, [n for n, storage in places.items() if storage in inputs])
        out[task.key] = task
    return list(out.values())


@st.composite
def divisions(draw: st.DrawFn) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """A graph of operations in execution order, cut into groups of neighbours."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    groups, n = [], 0
    for size in sizes:
        groups.append(list(range(n, n + size)))
        n += size
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1]).map(lambda p: (min(p), max(p)))
    return groups, draw(st.lists(pairs, max_size=3 * n))


@given(divisions())
def test_boxes_lie_apart_and_below_what_they_depend_on(division: tuple[list[list[int]], list[tuple[int, int]]]) -> None:
    groups, edges = division
    boxes = lay_out(groups, edges)
    home = {op: g for g, members in enumerate(groups) for op in members}

    def apart(a: Box, b: Box) -> bool:
        return a.x + a.width < b.x or b.x + b.width < a.x or a.y + a.height < b.y or b.y + b.height < a.y

    assert len(boxes) == len(groups) and all(b.x >= 0 and b.y >= 0 for b in boxes)
    assert all(apart(a, b) for n, a in enumerate(boxes) for b in boxes[:n])
    for a, b in edges:
        if home[a] != home[b]:
            assert boxes[home[a]].y + boxes[home[a]].height < boxes[home[b]].y


def test_dependences_are_those_of_the_graph(network: Network) -> None:
    graph = network.graph
    edges = set(dependences(graph))
    assert all(a < b for a, b in edges)
    readers = graph.consumers()
    for a, op in enumerate(graph.operations):
        for name in op.outputs:
            assert {(a, b) for b in readers.get(graph.storage(name), []) if b > a} <= edges
    sources = {name for op in graph.operations for name in op.inputs} - {v.buffer.name for v in graph.inputs} - set(graph.constants)
    assert edges and sources


def test_every_operator_is_drawn_once_and_inside_its_kernel(network: Network, tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        tasks = tasks_of(network)
        store.add_tasks(tasks)
        session = store.save(Session("vit", {t.key: 2.0 for t in tasks}, "xgb"))
        store.add(*(r for t in tasks for r in search(t, session.id, trials=0)))
        store.add(*search(tasks[2], session.id, trials=8))
        write(store, tmp_path / "r.html", network=network, peaks={})
        best = store.best(tasks[2])
    document = parse((tmp_path / "r.html").read_text())
    drawing = document.one("div", class_="plan").one("svg")
    operators = drawing.all("rect", class_="op")
    boxes = drawing.all("rect", class_="group")
    assert len(operators) == len(network.graph.operations) and len(boxes) == len(network.steps)
    inside = [sum(_contains(b, o) for o in operators) for b in boxes]
    assert inside == [len(s.operators) for s in network.steps]
    assert len(drawing.all("path", class_="edge")) == len(dependences(network.graph))
    titles = [g.one("title").text for g in drawing.all("g") if "data-operators" in g.attributes]
    assert [t.partition(": ")[2].partition(";")[0] for t in titles] == [" + ".join(s.operators) for s in network.steps]
    kept, faster = ([t for t in titles if words in t] for words in ("; 2.00 ms, as without tuning", "times faster than without tuning"))
    calls = sum(s.call.kernel == tasks[2].kernel() for s in network.steps)
    assert len(kept) + len(faster) == len(network.steps) and len(faster) == calls >= 1
    rows = table_of(document, "Kernels of the network")
    assert sum(int(r["calls"].text) for r in rows) == len(network.steps) and len(rows) == len(tasks)
    assert "not among the tasks shown here" not in document.text
    assert best is not None and best.seconds in [exact(r["with tuning"]) for r in rows]


def _contains(box: Element, operator: Element) -> bool:
    inside_x = (
        box.number("x") <= operator.number("x") <= operator.number("x") + operator.number("width") <= box.number("x") + box.number("width")
    )
    return inside_x and box.number("y") <= operator.number("y") < box.number("y") + box.number("height")


def test_hostile_operator_names_are_only_shown(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name="<script>alert(1)</script>")
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4]) for n in "xy"]
    graph = onnx.helper.make_graph([node], '"><svg onload=alert(1)>', value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    text = str(fusion.fusion_plan(Network.interpreted(load(model.SerializeToString()))))
    document = parse(text)
    assert not document.all("script") and "<script>alert(1)</script>" in document.text and '"><svg onload' in document.text


def test_a_network_too_large_to_draw_is_told_in_a_table(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "LARGEST", 3)
    document = parse(str(fusion.fusion_plan(network)))
    assert not document.all("div", class_="plan") and re.search(r"\d+ operators: too many to draw", document.text)
    assert table_of(document, "Kernels of the network")


def test_kernels_of_another_session_are_not_matched(network: Network, tmp_path: Path) -> None:
    from tests.report.sessions import filled

    from tilewright.report.findings import find

    with filled(tmp_path / "r.db", tasks=1) as store:
        findings = find(store)
    assert fusion.matches(network, findings) == {}
    text = page(findings, network)
    assert "times faster" not in text
    assert f"{len(network.steps)} of {len(network.steps)} kernel calls are not among the tasks shown here" in text
