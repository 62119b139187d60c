"""Block IR in MLIR: verified with the dialect that its own IRDL file declares."""

from __future__ import annotations

import numpy as np
import pytest
from examples import block_gemmini
from examples.block_attention import attention
from examples.block_matmul import grouped_matmul, matmul
from examples.block_vectors import layer_norm, softmax
from tests.lang.block.programs import counted_by_while, halved_until_small

import tilewright.language as tl
from tilewright.codegen.mlir import emit_block_irdl, emit_block_mlir
from tilewright.lang.block.ir import Function

ir = pytest.importorskip("torch_mlir.ir", reason="MLIR is in the package torch-mlir")


def loaded(function: Function, text: str) -> None:
    from torch_mlir.dialects import irdl

    with ir.Context(), ir.Location.unknown():
        dialect = ir.Module.parse(emit_block_irdl(function))
        assert dialect.operation.verify()
        irdl.load_dialects(dialect)
        assert ir.Module.parse(text).operation.verify()


def functions() -> dict[str, Function]:
    """Block IR of example programs: loops with carried blocks, reductions, masks, integer and floating types."""
    square, row = np.zeros((128, 128), np.float32), np.zeros(128, np.float32)
    heads = np.zeros((1, 2, 64, 32), np.float32)
    bytes_, words = np.zeros((64, 64), np.int8), np.zeros((64, 64), np.int32)
    strides = (4096, 2048, 32, 1)
    return {
        "softmax": softmax.block_ir((4,), square, square, 128, 128, 128, 100, PROGRAMS=4, BLOCK=128),
        "layer_norm": layer_norm.block_ir((128,), square, square, row, row, row, row, 128, 128, 1e-5, BLOCK=64),
        "quantised": block_gemmini.quantised.block_ir(
            (8,), bytes_, bytes_, bytes_, 64, 64, 64, SCALE=0.5, RELU=True, BM=32, BN=16, BK=32, GROUP=2
        ),
        "grouped": grouped_matmul.block_ir(
            (3,),
            (bytes_, bytes_.copy()),
            (bytes_, bytes_),
            (words, words.copy()),
            ((64, 64, 64),) * 2,
            PROGRAMS=3,
            BM=32,
            BN=32,
            BK=16,
            SUMS=tl.int32,
        ),
        "while": halved_until_small.block_ir((3,), row, row.copy(), words[0], 20, BLOCK=8),
        "counted while": counted_by_while.block_ir((3,), row, row.copy(), 100, 1, STEP=3, BLOCK=16),
        "int8 attention": block_gemmini.attention.block_ir((2,), bytes_, bytes_, bytes_, words, 0.5, 60, WIDTH=64, BM=32, KEYS=64),
        "attention": attention.block_ir((1, 2), heads, heads, heads, heads, 0.2, *strides, 2, 64, CAUSAL=True, WIDTH=32, BM=64, BN=32),
        "matmul": matmul.function.block_ir(
            (64,), square, square, square, 128, 128, 128, 128, 1, 128, 1, 128, 1, BM=16, BN=16, BK=32, GROUP=2
        ),
    }


FLOATS, INTEGERS = ("softmax", "layer_norm", "attention", "matmul", "while", "counted while"), ("quantised", "grouped", "int8 attention")


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS])
def test_example_programs_verify(name):
    function = functions()[name]
    text = emit_block_mlir(function)
    loaded(function, text)
    assert f'!block.ptr<"{"f32" if name in FLOATS else "i8"}">' in text


def test_mlir_refuses_operations_the_dialect_does_not_say():
    function = functions()["matmul"]
    text = emit_block_mlir(function)
    with pytest.raises(ir.MLIRError):
        loaded(function, text.replace('"block.dot_add"', '"block.divide"'))
    with pytest.raises(ir.MLIRError, match="tensor"):
        loaded(function, text.replace("tensor<16x16xf32>", "tensor<16x17xf32>", 1))
