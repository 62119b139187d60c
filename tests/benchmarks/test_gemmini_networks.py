"""The benchmark of networks on the array: every layer is there once, what the host does is listed, the page gets the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.gemmini_networks import HostKernel, Layer, convolution_of, insert, measured, perceptron, separable, summary, tables

from tilewright.lang import parse

pytest.importorskip("onnxruntime")


def test_a_small_perceptron(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    layers, host = measured("small", perceptron(2, (20, 18, 18, 18, 5)), 0, verify=True)
    assert [(r.operators, r.shape, r.times) for r in layers] == [
        ("QGemm + Relu", "2 x 20 x 18", 1),
        ("QGemm + Relu", "2 x 18 x 18", 2),
        ("QGemm", "2 x 18 x 5", 1),
    ]
    assert all(r.ours > 0 and r.default > 0 and not r.form for r in layers)
    assert [h.operators for h in host] == ["QuantizeLinear", "DequantizeLinear"]
    assert host[0].nbytes == 2 * 20 * (4 + 1) + 1 and all("no sums of products" in h.why for h in host)


def test_depthwise_convolutions_run_on_the_array(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against the library's loop for each channel; the default schedule alone takes a fraction of its cycles."""
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    layers, _ = measured("small", separable(16, (32,), 1), 0, verify=True)
    (row,) = (r for r in layers if r.shape.endswith("depthwise"))
    assert row.shape == "8 x 8 x 32 to 32, 3 x 3, depthwise" and row.macs == 8 * 8 * 32 * 9
    assert row.operators == "QLinearConv + Relu" and 0 < 3 * row.ours < row.default


def test_sums_of_the_tables() -> None:
    layers = [
        Layer("n", "QLinearConv", "a", 2, 512, 100, 150, "loop_conv_ws"),
        Layer("n", "QGemm", "b", 1, 256, 10, 10, ""),
        Layer("n", "QLinearAdd", "c", 3, 0, 7, 0, ""),
    ]
    host = [HostKernel("n", "MaxPool", 2, 50, 9, "why")]
    (text,) = summary(layers, host)
    assert "210 cycles for layers that multiply, 310 by the default (0.677); 21 for residual sums" in text
    assert "2 kernels, on 100 bytes with 18 operations" in text
    page = tables(layers, host)
    assert "| n | QLinearAdd | c | 3 | 7 | commands | - | - | - |" in page and "| n | MaxPool | 2 | 50 | 9 |" in page


def test_the_page_is_updated(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- networks -->\nold\n<!-- end of networks -->\nafter\n")
    insert(page, "new")
    assert page.read_text() == "before\n<!-- networks -->\nnew\n<!-- end of networks -->\nafter\n"


@pytest.mark.parametrize(("rows", "window", "stride"), [(224, 7, 2), (56, 3, 1), (56, 3, 2), (28, 1, 2), (7, 3, 1)])
def test_sizes_of_a_convolution(rows: int, window: int, stride: int) -> None:
    out = (rows + 2 * (window // 2) - window) // stride + 1
    kernel = parse(f"""
@kernel
def conv(x: i8[1, 3, {rows}, {rows}], w: i8[4, 3, {window}, {window}], y: i8[1, 4, 1, 1]):
    s = alloc(i32[1, 4, {out}, {out}])
    s[0, 0, 0, 0] = 0
""")
    found = convolution_of(kernel)
    assert (found.stride, found.out_rows, found.channels, found.kernels) == (stride, out, 3, 4)
