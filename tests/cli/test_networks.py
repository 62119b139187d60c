"""run, compile and build on a network, end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.cli.command import tilewright, words

from tilewright.cli.comparison import accumulated_bound, compare
from tilewright.graph import Network, compile, load
from tilewright.graph.inputs import random_inputs


def test_run_compares_with_onnxruntime_and_saves(model: Path, tmp_path: Path) -> None:
    import onnxruntime

    image = np.random.default_rng(5).standard_normal((2, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    result = tilewright(
        "run", str(model), "--dim", "batch=2", "--threads", "1", "--compare",
        "--input", f"image={tmp_path / 'image.npy'}", "--output-dir", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "agrees" in result.output and "2x5" in result.output
    expected = onnxruntime.InferenceSession(model).run(None, {"image": image})[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 1, "--dim batch=N"),
        (("--dim", "batch"), 2, "is not NAME=VALUE"),
        (("--dim", "batch=two"), 2, "is not an integer"),
        (("--dim", "batch=1", "--dim", "batch=2"), 2, "given twice"),
        (("--dim", "batch=1", "--input", "image=/nowhere.npy"), 1, "cannot read /nowhere.npy"),
        (("--dim", "batch=1", "--threads", "0"), 2, "greater than or equal to 1"),
        (("--dim", "batch=1", "--machine", "abacus"), 1, "there is no machine 'abacus'"),
        (("--dim", "batch=1", "--machine", "gemmini"), 1, "riscv.*graph.offloading.offloaded"),
    ],
)
def test_run_says_what_is_wrong(model: Path, args: tuple[str, ...], code: int, message: str) -> None:
    result = tilewright("run", str(model), *args)
    assert result.exit_code == code, result.output
    assert re.search(message, words(result.output))


def test_run_refuses_inputs_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((1, 3, 8, 8), np.float32))
    shape = tilewright("run", str(model), "--dim", "batch=1", "--input", f"image={tmp_path / 'wrong.npy'}")
    assert shape.exit_code == 1 and "has shape [1, 3, 8, 8], expected [1, 3, 16, 16]" in shape.output
    name = tilewright("run", str(model), "--dim", "batch=1", "--input", f"picture={tmp_path / 'wrong.npy'}")
    assert name.exit_code == 1 and "no input picture" in name.output and "inputs: image" in name.output


def test_run_refuses_several_arrays_and_pickles(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=np.zeros(1))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    for file, message in (("several.npz", "holds several arrays"), ("object.npy", "cannot read")):
        result = tilewright("run", str(model), "--dim", "batch=1", "--input", f"image={tmp_path / file}")
        assert result.exit_code == 1 and message in result.output


def test_run_reports_unwritable_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = tilewright("run", str(model), "--dim", "batch=1", "--output-dir", str(tmp_path / "file" / "out"))
    assert result.exit_code == 1 and "cannot write outputs" in result.output


def test_a_cache_that_cannot_be_written_is_a_warning_for_people(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", "/proc/tilewright")
    result = tilewright("run", str(model), "--dim", "batch=1", "--threads", "1")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: cannot write the build cache /proc/tilewright") and "RuntimeWarning" not in result.stderr


def test_compile_lists_kernels_memory_and_rates(model: Path) -> None:
    result = tilewright("compile", str(model), "--dim", "batch=1", "--threads", "1", "--profile", "2")
    assert result.exit_code == 0, result.output
    network = compile(model, threads=1, dims={"batch": 1})
    assert f"{len(network.steps)} kernel calls" in result.output
    for text in ("mapping and tile", "Softmax", "GFLOP/s", "of peak", "without reuse", "compiled in"):
        assert text in result.output


def test_build_writes_every_kernel_and_the_plan(model: Path, tmp_path: Path) -> None:
    result = tilewright("build", str(model), "--dim", "batch=1", "--emit", "obj", "-o", str(tmp_path / "out"), "--threads", "1")
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    called = {c["kernel"] for c in plan["calls"]}
    assert called == {p.stem for p in (tmp_path / "out").glob("*.o")} == {p.stem for p in (tmp_path / "out").glob("*.h")}
    known = (
        set(plan["offsets"]) | set(plan["constants"]) | set(plan["views"]) | set(plan["inputs"].values()) | set(plan["outputs"].values())
    )
    assert {a for c in plan["calls"] for a in c["arguments"]} <= known
    assert all(0 <= offset < plan["arena_bytes"] for offset in plan["offsets"].values())


def test_a_wrong_result_does_not_agree(model: Path) -> None:
    network = Network.interpreted(load(model, dims={"batch": 1}))
    right = {"logits": np.linspace(-1, 1, 5, dtype=np.float32).reshape(1, 5)}
    bound = accumulated_bound(network)
    assert 1e-6 < bound < 1e-3

    def holds(change: float, at: int = 2) -> bool:
        wrong = {"logits": right["logits"].copy()}
        wrong["logits"][0, at] += np.float32(change)
        return compare(network, wrong, right)[0].holds

    assert holds(0.0) and holds(0.5 * bound)
    assert not holds(2 * bound) and not holds(np.nan) and not holds(np.inf)
    assert not compare(network, {"logits": right["logits"].T}, right)[0].holds


def test_comparison_of_integers_is_exact_and_nan_equals_nan(model: Path) -> None:
    network = Network.interpreted(load(model, dims={"batch": 1}))
    assert not compare(network, {"y": np.array([1, 2])}, {"y": np.array([1, 3])})[0].holds
    same = np.array([np.nan, np.inf, 1.0], np.float32)
    assert compare(network, {"y": same}, {"y": same.copy()})[0].holds


def test_random_inputs_of_integers_are_zeros_and_ones() -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    inputs = [
        helper.make_tensor_value_info("table", TensorProto.FLOAT, [2, 8]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, [64]),
    ]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 8])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    made = random_inputs(Network.interpreted(load(model)))
    assert set(made["ids"].tolist()) == {0, 1} and made["table"].std() > 0.3
