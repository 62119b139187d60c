"""Models of PyTorch, captured by torch.compile or torch.export, against PyTorch itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.graph import compile
from tilewright.graph.torch_backend import CompiledGraph, compiled, exported
from tilewright.util.errors import ImportFailure, RuntimeFailure

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What torch.compile remembers is global."""
    torch.compiler.reset()
    torch.manual_seed(0)


def block() -> Any:
    """A convolution with statistics of its own, then attention with a residual: parameters and buffers."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
            return y + self.attention(y, y, y, need_weights=False)[0]

    made = Block().eval()
    made.norm.running_mean.uniform_()
    made.norm.running_var.uniform_(0.5, 1.5)
    return made


class Watched:
    """The backend, and the graphs it was given."""

    def __init__(self) -> None:
        self.made: list[CompiledGraph] = []

    def __call__(self, graph: Any, example_inputs: Any) -> CompiledGraph:
        self.made.append(compiled(graph, example_inputs, options={"threads": 1}))
        return self.made[-1]

    @property
    def networks(self) -> list[Any]:
        return [network for g in self.made for network in (made.network for made in g._networks.values())]


def agree(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_model_runs_with_its_parameters_and_buffers_as_constants() -> None:
    model, backend = block(), Watched()
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        for batch in (1, 1, 2):
            x = torch.randn(batch, 3, 5, 5)
            agree(fast(x), model(x))
        assert len(backend.networks) == 2 and all(len(n.input_names) == 1 for n in backend.networks), "one network for each shape"
        model.conv.weight.mul_(2.0)
        agree(fast(x), model(x))
        model.norm.load_state_dict({k: v + 1 for k, v in model.norm.state_dict().items()})
        agree(fast(x), model(x))
    assert len(backend.networks) == 2, "what was made for other parameters is forgotten"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_results_are_values_of_their_own(dtype: str) -> None:
    """Also those that are an argument, or one another."""
    x = torch.randint(0, 2, (4, 5)).to(getattr(torch, dtype))
    with torch.no_grad():
        y, again, turned, same = compiled(lambda x: (x.clone(), x.clone(), x.t(), x), [x])(x)
        want = x.clone()
        x.logical_not_()
    assert all(torch.equal(r, want) and r.dtype == x.dtype for r in (y, again, same)) and torch.equal(turned, want.t())
    assert len({r.data_ptr() for r in (x, y, again, turned, same)}) == 5


def test_numbers_keep_their_values() -> None:
    f = compiled(lambda n, x, scale: (x[:n] * scale,), [])
    x = torch.arange(6.0)
    with torch.no_grad():
        assert [f(n, x, s)[0].tolist() for n, s in ((2, 1.0), (3, 1.0), (2, 3.0))] == [[0, 1], [0, 1, 2], [0, 3]]


def test_numbers_that_are_equal_are_not_one_number() -> None:
    f, x = compiled(lambda n, x: (x * n,), []), torch.arange(3)
    with torch.no_grad():
        assert [f(n, x)[0].dtype for n in (1, 1.0, 1)] == [torch.int64, torch.float32, torch.int64]
        assert torch.signbit(f(-0.0, x.float())[0]).all() and not torch.signbit(f(0.0, x.float())[0]).any()


def test_numbers_that_a_graph_reads_from_tensors_are_its_own() -> None:
    """torch.compile gives floats that change as tensors; a trace would keep the first."""
    fast, x = torch.compile(lambda x, s: (x * s, x.shape[0] + 1, None), backend=Watched()), torch.ones(2)
    with torch.no_grad():
        for s, n in ((1.5, 2), (2.5, 3), (3.5, 4), (2.5, 5)):
            y, length, nothing = fast(torch.ones(n), s)
            assert y.tolist() == [s] * n and length == n + 1 and nothing is None
        with pytest.raises(ImportFailure, match="reads the value of a tensor that it computes"):
            compiled(lambda x: (x * x.sum().item(),), [])(x)
        with pytest.raises(ImportFailure, match="reads the value of an argument"):
            exported(lambda x, s: x * float(s), [x, torch.tensor(2.0)])
        with pytest.raises(ImportFailure, match="the module returns int beside tensors"):
            exported(lambda x: (x, x.shape[0]), [x])


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_whole_quotients_are_rounded_down(dtype: str) -> None:
    """The exporter writes them as divisions that truncate."""
    x = torch.tensor([-7, -6, -1, 1, 6, 7], dtype=getattr(torch, dtype))

    def run(x: Any) -> Any:
        y = x.clone()
        y //= 2
        return x // 2, torch.floor_divide(x, -2), x.floor_divide(3), 5 // x, x // x.flip(0), y

    with torch.no_grad():
        for got, want in zip(compiled(run, [])(x), run(x), strict=True):
            agree(got, want)
        agree(torch.compile(run, backend=Watched())(x)[3], run(x)[3])


def test_in_inference_mode_a_network_is_made_once() -> None:
    outside = block()
    with torch.inference_mode():
        x = torch.randn(1, 3, 4, 4)
        for model in (outside, block()):
            backend = Watched()
            fast = torch.compile(model, backend=backend)
            agree(fast(x), model(x))
            (first,) = backend.networks
            agree(fast(x + 1), model(x + 1))
            assert backend.networks == [first]
        with pytest.raises(ImportFailure, match="writes into its arguments"):
            compiled(lambda x: (x.add_(1.0),), [])(x)


def test_another_parameter_is_another_constant() -> None:
    """Even where the elements are in the place of the first one's, which is gone."""
    place = torch.ones(3)
    f, x = compiled(lambda p, x: (x * p,), []), torch.ones(3)
    with torch.no_grad():
        assert f(torch.nn.Parameter(place), x)[0].tolist() == [1, 1, 1]
        place.numpy()[:] = 2  # as a new parameter would be filled: it counts its own writes
        assert f(torch.nn.Parameter(place), x)[0].tolist() == [2, 2, 2]
        assert f(place + 1, x)[0].tolist() == [3, 3, 3], "and what is no parameter is no constant"


def test_several_threads_may_be_the_first() -> None:
    graphs = [compiled(lambda x, n=n: (torch.relu(x) * n,), [], options={"threads": 1}) for n in range(4)]

    def called(n: int) -> list[float]:
        with torch.no_grad():
            return graphs[n % 4](torch.ones(2))[0].tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(called, range(8))) == [[float(n % 4)] * 2 for n in range(8)]


def test_an_exported_program_is_a_model() -> None:
    model, x = block(), torch.randn(1, 3, 4, 4)
    found = compile(exported(torch.export.export(model, (x,)), (x,)), threads=1)({"x0": x.numpy()})
    np.testing.assert_allclose(found["y0"], model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: x.add_(1.0), "the module writes into its arguments"),
        (lambda x: (x, {"a": x}), "the module returns dict beside tensors"),
        (lambda x: x.shape[0], "the module returns no tensor"),
        (lambda x: torch.linalg.qr(x)[0], "cannot write this as ONNX|no lowering"),
        (lambda x: torch.nn.functional.dropout(x, 0.5, training=True), "Dropout|dropout"),
        (torch.rand_like, "RandomUniformLike|cannot write"),
    ],
)
def test_what_cannot_be_done_is_said(run: Callable[..., Any], message: str) -> None:
    with torch.no_grad(), pytest.raises(ImportFailure, match=message):
        compiled(run, [])(torch.ones(4, 4))


def test_modules_in_training_mode_are_refused_and_left_alone() -> None:
    model = torch.nn.BatchNorm1d(4)
    with pytest.raises(ImportFailure, match=r"in training mode\n.*model.eval"):
        exported(model, [torch.ones(2, 4)])
    assert model.num_batches_tracked == 0


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    guide = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text()
    text = "".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    assert 'backend="tilewright"' in text
    # An installation that is older than the entry point does not know the name.
    exec(text.replace('backend="tilewright"', "backend=compiled"), {"compiled": compiled})
    assert "largest difference" in capsys.readouterr().out and (tmp_path / "model.onnx").exists()


def test_gradients_and_other_devices_are_refused() -> None:
    f = compiled(lambda x: (x * 2,), [])
    with pytest.raises(RuntimeFailure, match=r"computes no gradients\n.*torch.no_grad"):
        f(torch.ones(3, requires_grad=True))
    with pytest.raises(RuntimeFailure, match="arguments on meta"):
        f(torch.ones(3, device="meta"))


def test_torch_finds_the_backend_by_its_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["torch_dynamo_backends"]["tilewright"].split(":")
    assert getattr(import_module(module), name) is compiled
