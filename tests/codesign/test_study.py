"""A study from workload to files: budgets of methods, exports that can be read back, the page, the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.command import tilewright, words
from tests.report.document import parse

from tilewright.cli.codesign import export
from tilewright.codesign.export import architecture_yaml, mapping_yaml, mappings_text, problem_yaml
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.methods import METHODS
from tilewright.codesign.problem import Budget, Limits, Problem, Run
from tilewright.codesign.search import codesign
from tilewright.codesign.study import Study, study
from tilewright.cost.loopnest import parse_nest
from tilewright.hw import load_machine
from tilewright.hw.library import eyeriss, nvdla
from tilewright.hw.library.gemmini import family
from tilewright.hw.library.gemmini_config import buildable
from tilewright.hw.load import load_family
from tilewright.report.codesign import networks, page
from tilewright.util.errors import MachineError, SpaceError

LAYERS = (
    Layer("window", {"K": 32, "C": 16, "P": 14, "Q": 14, "R": 3, "S": 3}, {"SH": 2, "SW": 2}, count=2),
    Layer.gemm("product <b>", 64, 128, 96),
)


@pytest.fixture(scope="module")
def found() -> Study:
    return study(LAYERS, family(), budget=Budget(evaluations=6000), methods=("gradient", "random"))


def test_methods_get_the_same_evaluations_and_are_watched() -> None:
    seen: set[str] = set()
    done = study(LAYERS, family(), budget=Budget(evaluations=2000), methods=("genetic", "random"), watch=lambda name, _: seen.add(name))
    assert seen == {"genetic", "random"} and list(done.runs) == ["genetic", "random"]
    assert done.runs["random"].budget.evaluations == done.run.evaluations <= 2000
    assert done.problem.space.family.area is not None and set(done.hardware) == {"dim", "scratchpad_bytes", "accumulator_bytes"}


def test_what_cannot_be_studied_is_refused() -> None:
    with pytest.raises(SpaceError, match="no search method 'magic'"):
        study(LAYERS, family(), budget=Budget(evaluations=10), methods=("magic",))
    with pytest.raises(SpaceError, match=r"the smallest gemmini has .* mm2, the limit is 0.001"):
        study(LAYERS, family(), limits=Limits(area=1e-3, area_model=family().area), budget=Budget(evaluations=500))
    nothing = study(LAYERS, family(), limits=Limits(power=1e-9), budget=Budget(evaluations=500), methods=("random",))
    with pytest.raises(SpaceError, match="no mappings within the limits") as e:
        _ = nothing.hardware
    assert "raise" in str(e.value.hint)
    with pytest.raises(MachineError, match="no family of machines 'x86'") as m:
        load_family("x86")
    assert "gemmini" in str(m.value.hint)


@pytest.mark.parametrize("method", ["gradient", "genetic", "two-loop", "random"])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(most={"dim": 1}),
        Limits(most={"dim": 3}),
        Limits(most={"dim": 2.5, "scratchpad_bytes": 3000}),
        Limits(area=0.0188, area_model=family().area),
    ],
)
def test_what_the_smallest_machine_keeps_is_kept_by_every_method(limits: Limits, method: str) -> None:
    done = study(LAYERS, family(), limits=limits, budget=Budget(evaluations=300), methods=(method,))
    machine = done.hardware
    assert all(machine[k] <= most for k, most in limits.most.items()) and machine["dim"] == int(machine["dim"])
    assert machine["scratchpad_bytes"] % 1024 == 0
    if limits.area is not None and limits.area_model is not None:
        assert limits.area_model(machine) <= limits.area


@pytest.mark.parametrize("method", ["gradient", "random"])
def test_the_least_power_is_named_and_can_be_asked_for(method: str) -> None:
    def of(power: float) -> Study:
        return study(LAYERS, family(), limits=Limits(power=power), budget=Budget(evaluations=500), methods=(method,))

    nothing = of(1e-9)
    with pytest.raises(SpaceError, match="the least power found is") as e:
        _ = nothing.point
    least = float(str(e.value.hint).split()[6])
    assert nothing.run.least_power is not None and nothing.run.least_power <= least <= 1.02 * nothing.run.least_power
    done = of(least)
    assert done.problem.watts(done.evaluation.cycles, done.evaluation.energy)[0, 0] <= least


def test_mappings_are_read_back(found: Study) -> None:
    lines = mappings_text(found.layers, found.nests).splitlines()
    assert [line.split("\t")[0] for line in lines] == ["window", "product <b>"]
    for line, nest, layer in zip(lines, found.nests, found.layers, strict=True):
        again = parse_nest(line.split("\t")[3])
        assert again == nest
        assert all(again.sizes().get(d, 1) == n for d, n in layer.sizes.items())


def _yaml(text: str) -> Any:
    """Timeloop's tags as plain nodes."""
    yaml = pytest.importorskip("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        pass

    for tag in ("!Container", "!Component"):
        Loader.add_constructor(tag, lambda loader, node: {"tag": node.tag, **loader.construct_mapping(node, deep=True)})
    return yaml.load(text, Loader)


def test_the_architecture_has_levels_and_containers_of_units(found: Study) -> None:
    nodes = _yaml(architecture_yaml(family(), found.hardware))["architecture"]["nodes"]
    assert [n["name"] for n in nodes] == ["gemmini", "L3", "L2", "below_L2", "L1", "below_L1", "L0", "multiplier"]
    meshes = {n["name"]: n["spatial"] for n in nodes if "spatial" in n}
    assert meshes == {"below_L2": {"meshX": found.hardware["dim"]}, "below_L1": {"meshY": found.hardware["dim"]}}
    pad = next(n for n in nodes if n["name"] == "L2")
    assert pad["attributes"]["entries"] == found.hardware["scratchpad_bytes"]
    assert pad["constraints"]["dataspace"] == {"keep": ["Weights", "Inputs"], "bypass": ["Outputs"]}


def test_a_problem_has_the_layers_sizes(found: Study) -> None:
    problem = _yaml(problem_yaml(found.layers[0]))["problem"]
    assert problem["instance"]["K"] == 32 and problem["instance"]["Hstride"] == 2


@pytest.mark.parametrize(
    "name, sizes, nest",
    [
        (
            "gemmini",
            {"dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10},
            "L3[WIO] P7 K2 - L2[WI] K16X - L1[O] S3 R3 Q14 P2 C16X - L0[W] N1",
        ),
        ("nvdla", nvdla.LARGE, "L3[WIO] P7 - L2[WI] K32X - L1[O] S3 R3 Q14 P2 C16X - L0[W] N1"),
        ("eyeriss", eyeriss.CHIP, "L4[WIO] P7 - L3[IO] C4 Q14 R3X P2X K8X - L2[I] N1 - L1[W] C4 S3 - L0[O] K4"),
    ],
)
def test_a_mappings_directives_are_for_nodes_of_the_architecture(name: str, sizes: Mapping[str, float], nest: str) -> None:
    own, sides = load_family(name), {"X": 7, "Y": 0}
    nodes = _yaml(architecture_yaml(own, sizes))["architecture"]["nodes"]
    at = {n["name"]: n for n in nodes}
    kinds: dict[str, list[str]] = {}
    product = dict.fromkeys("NKCPQRS", 1)
    for entry in _yaml(mapping_yaml(own, parse_nest(nest)))["mapping"]:
        node = at[entry["target"]]
        kinds.setdefault(entry["target"], []).append(entry["type"])
        trips = {f.split("=")[0]: int(f.split("=")[1]) for f in entry.get("factors", ())}
        product = {d: n * trips.get(d, 1) for d, n in product.items()}
        if entry["type"] != "dataspace":
            assert sorted(entry["permutation"]) == sorted(trips) == sorted("NKCPQRS")
        if entry["type"] == "spatial":
            ((axis, mesh),) = node["spatial"].items()
            assert np.prod(list(trips.values())) <= mesh and entry["split"] == sides[axis[-1]]
        assert (entry["type"] == "spatial") == (node["tag"] == "!Container")
    assert product == LAYERS[0].sizes
    stores = [n["name"] for n in nodes if n["tag"] == "!Component"][:-1]
    containers = [n["name"] for n in nodes if "spatial" in n]
    assert kinds == {**{n: ["temporal", "dataspace"] for n in stores}, **{n: ["spatial"] for n in containers}}


def test_files_for_the_machine(found: Study, tmp_path: Path) -> None:
    written = export(found, "some:net-1", tmp_path)
    assert {"report.html", "mappings.txt", "machine.py", "GemminiConfig.scala", "gemmini_params.h"} <= set(written)
    machine = load_machine(tmp_path / "machine.py")
    for name, value in found.hardware.items():
        assert machine.parameters[name] >= value
    text = (tmp_path / "gemmini_params.h").read_text()
    m = buildable(found.hardware)
    assert f"#define DIM {m['dim']}\n" in text and m["dim"] & (m["dim"] - 1) == 0
    rows = int(text.split("BANK_ROWS ")[1].split()[0])
    assert rows * 4 * m["dim"] == m["scratchpad_bytes"]
    assert f"meshRows = {m['dim']}," in (tmp_path / "GemminiConfig.scala").read_text()
    assert buildable({"dim": 12, "scratchpad_bytes": 5000, "accumulator_bytes": 1}) == {
        "dim": 16, "scratchpad_bytes": 8192, "accumulator_bytes": 2048,
    }  # fmt: skip


def test_exported_machines_load_whatever_the_family_is_called(tmp_path: Path) -> None:
    tiny = (Layer.gemm("tiny", 4, 4, 4),)
    export(study(tiny, load_family("gemmini:inputs=bf16"), budget=Budget(evaluations=200)), "a:b", tmp_path)
    machine = load_machine(tmp_path / "machine.py")
    assert (
        machine.name == "gemmini_inputs_bf16_a_b" and "object GemminiInputsBf16ABConfigs" in (tmp_path / "GemminiConfig.scala").read_text()
    )


def test_the_page_shows_machine_curves_front_roofline_and_layers(found: Study) -> None:
    text = page(found, "net <i>")
    document = parse(text)
    assert "<b>" not in text and "<i>" not in text
    assert len(document.all("svg")) >= 4
    assert "evaluations of a mapping of a layer" in text and ">seconds<" in text
    for part in ("machine", "search", "pareto", "roofline", "layers"):
        assert f'id="{part}"' in text and f'href="#{part}"' in text
    assert all(str(nest) in text for nest in found.nests) and "random" in text


def test_the_command_searches_and_writes(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 16, "C": 8, "P": 12, "Q": 12, "R": 3, "S": 3}]')
    given = [f"--against={x}" for x in ("dim=4", "scratchpad_bytes=8192", "accumulator_bytes=4096")]
    done = tilewright("codesign", str(layers), "--budget", "3000", "--compare", "random", "--out", str(tmp_path / "out"), *given)
    assert done.exit_code == 0, done.output
    assert "gradient" in done.output and "given machine" in done.output and "report.html" in done.output
    assert (tmp_path / "out" / "timeloop" / "layer0.yaml").exists()
    fixed = [f"--fixed={x}" for x in ("dim=4", "scratchpad_bytes=8192", "accumulator_bytes=4096")]
    assert tilewright("codesign", str(layers), "--budget", "2000", *fixed).exit_code == 0


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 0, "C": 8}]')
    wrong = tilewright("codesign", str(layers))
    assert wrong.exit_code == 1 and "layer 0" in wrong.output and "has K = 0" in words(wrong.output)
    layers.write_text('[{"K": 16, "C": 8}]')
    assert tilewright("codesign", "no_such_network").exit_code == 1
    bad = tilewright("codesign", str(layers), "--budget", "soon")
    assert bad.exit_code == 2 and "neither a time" in words(bad.output)
    tiny = tilewright("codesign", str(layers), "--budget", "500", "--area", "0.001")
    assert tiny.exit_code == 1 and "raise the area limit" in words(tiny.output)
    none = tilewright("codesign", str(layers), "--budget", "500", "--power", "1e-9")
    assert none.exit_code == 1 and "nothing within the limits" in none.output
    assert "the least power found is" in words(none.output) and "raise the limit of power to" in words(none.output)
    assert tilewright("codesign", str(layers), "--budget", "500", "--power", "1e-9", "--out", str(tmp_path)).exit_code == 1
    unbound = tilewright("codesign", "resnet50", "--budget", "500", "--dim", "N=4")
    assert unbound.exit_code == 1 and "resnet50 has no open size 'N'" in words(unbound.output)
    seed = tilewright("codesign", str(layers), "--budget", "500", "--seed=-1")
    assert seed.exit_code == 2 and "--seed" in seed.output
    assert tilewright("codesign", str(layers), "--budget", "500", "--area=-1").exit_code == 1
    assert tilewright("codesign", str(layers), "--budget", "500", "--most", "dims=3").exit_code == 1


def test_what_is_wrong_is_said_before_the_search(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 16, "C": 8}]')
    search = ("codesign", str(layers), "--budget", "500")
    blocked = tilewright(*search, "--out", str(layers))
    assert blocked.exit_code == 1 and "cannot write into" in words(blocked.output) and "--out" in blocked.output
    against = tilewright(*search, "--against", "dim=4")
    assert against.exit_code == 1 and "give dim, scratchpad_bytes" in words(against.output)
    fixed = [f"--fixed={x}" for x in ("dim=4", "scratchpad_bytes=8192", "accumulator_bytes=4096")]
    small = tilewright(*search, *fixed, "--area", "0.01")
    assert small.exit_code == 1 and "mm2, the limit is 0.01" in words(small.output)
    layers.write_text('[{"K": 4294967296, "C": 8}]')
    huge = tilewright(*search)
    assert huge.exit_code == 1 and "whole numbers from 1 to 2147483647" in words(huge.output)


def test_an_interrupted_search_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str, run: Run) -> None:
        if run.point is not None and run.evaluations >= 400:
            raise KeyboardInterrupt

    stopped = study(LAYERS, family(), budget=Budget(evaluations=5000), methods=("random", "genetic"), watch=interrupt)
    assert stopped.interrupted and list(stopped.runs) == ["random"] and np.isfinite(stopped.run.best)
    assert len(stopped.nests) == len(LAYERS) and stopped.run.evaluations < 5000

    def at_once(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "random", at_once)
    with pytest.raises(KeyboardInterrupt):
        study(LAYERS, family(), budget=Budget(evaluations=500), methods=("random",))


def test_figures_are_those_of_the_evaluator(found: Study) -> None:
    e = found.evaluation
    assert np.exp(found.problem.value(e.cycles, e.energy))[0] == pytest.approx(found.run.best)


def test_several_networks_count_each_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names that are long paths are folded in tables
    layers = Path("nets.json")
    layers.write_text('{"one": [{"K": 16, "C": 8, "P": 12, "count": 2}], "two": [{"K": 16, "C": 8, "P": 12}, {"K": 64, "C": 32}]}')
    names = [f"{layers}:one", f"{layers}:two"]
    given = [f"--against={x}" for x in ("dim=4", "scratchpad_bytes=8192", "accumulator_bytes=4096")]
    done = tilewright("codesign", *names, "--budget", "2000", "--compare", "random", *given, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert done.output.count("given machine") == 3  # of all, and of each network
    text = (tmp_path / "out" / "report.html").read_text()
    assert 'id="networks"' in text and "nets_one + nets_two" in text
    assert "4 layers of 2 networks, of 2 shapes" in text
    Path("again").mkdir()
    other = Path("again") / "nets.json"
    other.write_text(layers.read_text())
    alike = tilewright("codesign", names[0], f"{other}:one", "--budget", "300")
    assert alike.exit_code == 0 and "again/nets.json:one" in words(alike.output).replace(" ", "")
    twice = tilewright("codesign", names[0], names[0])
    assert twice.exit_code == 2 and "given twice" in words(twice.output)


def test_figures_of_networks_are_those_of_each_alone() -> None:
    done = study({"a": LAYERS[:1], "b": LAYERS}, family(), budget=Budget(evaluations=3000))
    both = networks(done.run)
    assert [n.name for n in both] == ["a", "b"] and [n.layers for n in both] == [2, 3]
    machine, nests = done.hardware, {x.shape: nest for x, nest in zip(done.layers, done.nests, strict=True)}
    for own, layers in zip(both, (LAYERS[:1], LAYERS), strict=True):
        alone = Problem(MapSpace(layers, family()), hardware=machine)
        mapped = [nests[layer.shape] for layer in layers]
        e = alone.evaluate(alone.space.encode(mapped)[None])
        latency, energy = alone.totals(e.cycles, e.energy)
        assert (own.cycles, own.energy) == pytest.approx((latency[0, 0], energy[0, 0]))
        assert own.score == pytest.approx(own.cycles * own.energy)
    assert done.run.best == pytest.approx(np.sqrt(both[0].score * both[1].score))
    reference = Run(done.problem.on(machine), Budget(evaluations=100))
    assert reference.problem.score(reference.problem.evaluate(done.point[None]))[0] == pytest.approx(done.run.best)


def test_the_report_says_whose_cycles_it_has(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 16, "C": 8, "P": 12, "Q": 12, "R": 3, "S": 3}]')
    said = {"roofline": "Cycles are the roofline", "rtl": "fitted to the array"}
    for cycles, words_of_it in said.items():
        done = tilewright("codesign", str(layers), "--budget", "1000", "--cycles", cycles, "--out", str(tmp_path / cycles))
        assert done.exit_code == 0 and words_of_it in words(done.output), done.output
        assert words_of_it in (tmp_path / cycles / "report.html").read_text()
    wrong = tilewright("codesign", str(layers), "--cycles", "guessed")
    assert wrong.exit_code == 1 and "one of roofline, rtl" in words(wrong.output)
    none = tilewright("codesign", str(layers), "--machine", "eyeriss", "--cycles", "rtl")
    assert none.exit_code == 1 and "no cycles fitted" in words(none.output)


def test_throughput_is_of_batches(tmp_path: Path) -> None:
    """Of a product with a vector, weights are fetched once for the batch; where both operands are computed, for each sample."""
    fixed = {"dim": 16.0, "scratchpad_bytes": 65536.0, "accumulator_bytes": 16384.0}
    rates = {}
    for weights in (True, False):
        for batch in (1, 8):
            layer = Layer.gemm("vector", 1, 256, 256, weights=weights)
            done = codesign([layer], family(), "throughput", batch=batch, hardware=fixed, budget=1500)
            (rates[weights, batch],) = done.throughput
            assert done.throughput[0] == pytest.approx(batch * 1e9 / done.score)
            assert done.score == pytest.approx(float(done.cycles @ [x.count for x in done.layers]))
    assert rates[True, 8] > 6 * rates[True, 1] and rates[False, 8] == pytest.approx(rates[False, 1])
    layers = tmp_path / "layers.json"
    layers.write_text('[{"K": 17, "C": 7, "P": 13}]')
    ran = tilewright(
        "codesign", str(layers), "--objective=throughput", "--batch=8", "--padding=0.5", "--budget=2000", "--out", str(tmp_path / "out")
    )
    assert ran.exit_code == 0 and "For a batch of 8 samples" in words(ran.output) and "samples a second at 1 GHz" in words(ran.output)
    assert "a batch of 8 samples" in (tmp_path / "out" / "report.html").read_text()
    assert tilewright("codesign", str(layers), "--batch=0").exit_code == 2
