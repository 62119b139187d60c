"""ONNX's own node tests through the backend interface: a sample by default, all of them when slow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner, _normalize_tensor

from tilewright.graph.backend import PreparedModel, TilewrightBackend

#: At least this many of the node tests pass (see benchmarks/onnx_node_tests.py for the list of the rest).
FLOOR = 1600


@cache
def cases() -> dict[str, Any]:
    return {c.name: c for c in collect_testcases(None)}


def run(case: Any, *, native: bool) -> None:
    for inputs, outputs in case.data_sets:
        got = PreparedModel(case.model, native=native).run([_normalize_tensor(i) for i in inputs])
        Runner.assert_similar_outputs([_normalize_tensor(o) for o in outputs], got, case.rtol, case.atol)


def passes(case: Any, *, native: bool) -> bool:
    try:
        run(case, native=native)
    except Exception:
        return False
    return True


SAMPLE = [
    "test_add_bcast",
    "test_div_int32_trunc",
    "test_pow_types_float32_int64",
    "test_clip_default_int8_max",
    "test_where_example",
    "test_softmax_axis_0",
    "test_logsoftmax_large_number",
    "test_layer_normalization_4d_axis2",
    "test_batchnorm_epsilon",
    "test_matmul_bcast",
    "test_gemm_all_attributes",
    "test_einsum_inner_prod",
    "test_conv_with_strides_and_asymmetric_padding",
    "test_convtranspose_output_shape",
    "test_maxpool_with_argmax_2d_precomputed_strides",
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_reduce_log_sum_exp_keepdims_random",
    "test_argmax_no_keepdims_random_select_last_index",
    "test_cumsum_2d_axis_0",
    "test_top_k",
    "test_transpose_all_permutations_3",
    "test_slice_neg_steps",
    "test_reflect_pad",
    "test_gathernd_example_float32",
    "test_scatternd_add",
    "test_onehot_negative_indices",
    "test_resize_upsample_sizes_cubic",
    "test_gridsample_bicubic",
    "test_lstm_with_peepholes",
    "test_gru_seq_length",
    "test_qlinearconv",
    "test_quantizelinear_blocked_asymmetric",
    "test_attention_4d_gqa",
    "test_sce_mean_weight_ii_3d_log_prob",
    "test_if",
    "test_bitshift_right_uint16",
]


def sample() -> Iterator[str]:
    yield from (n for n in SAMPLE if n in cases())


@pytest.mark.parametrize("name", list(sample()))
def test_node_by_reference(name: str) -> None:
    run(cases()[name], native=False)


@pytest.mark.parametrize("name", list(sample()))
def test_node_compiled(name: str) -> None:
    run(cases()[name], native=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_nodes_compiled() -> None:
    passed = [n for n, c in cases().items() if passes(c, native=True)]
    assert len(passed) >= FLOOR


def test_run_node() -> None:
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    node = helper.make_node("Add", ["x", "y"], ["z"])
    (z,) = TilewrightBackend.run_node(node, [x, y], outputs_info=[(np.float32, (2, 3))])
    assert np.array_equal(z, x + y)
    assert TilewrightBackend.supports_device("CPU")
    assert not TilewrightBackend.supports_device("CUDA:0")
