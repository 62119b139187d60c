"""`tilewright map`: tables, explanations, errors."""

from __future__ import annotations

import re

import pytest
from tests.cli.command import tilewright, words


def invoke(*args: str):
    result = tilewright("map", *args)
    return result.exit_code, words(result.output)


def test_conv2d_prints_all_49_mappings_by_default():
    code, out = invoke("conv2d")
    assert code == 0
    assert "49 mappings (complete) onto cuda.sm80" in out
    assert len(re.findall(r"i<-\S+ j<-k \w<-\S+", out)) == 49


def test_published_space_and_shape():
    code, out = invoke("depthwise", "--space", "amos", "--shape", "c=8,m=2,p=7,q=7", "--machine", "gemmini", "--limit", "3")
    assert code == 0
    assert "depthwise_conv2d n=1 c=8 m=2 p=7 q=7 r=3 s=3" in out and "11 mappings (amos)" in out and "8 more" in out


def test_families_are_compared():
    code, out = invoke("conv2d", "--instruction", "wmma_f16", "--shape", "p=7,q=7", "--limit", "1")
    assert code == 0 and "147 mappings" in out and "m8n32k16" in out and "1.143x" in out


@pytest.mark.parametrize(("machine", "instr"), [("x86.avx512", "fma_outer"), ("x86.amx", "tdpbssd"), ("virtual.gemv", "gemv")])
def test_default_instruction_is_the_one_whose_axes_fill(machine, instr):
    assert f"onto {machine} {instr}" in invoke("matmul", "--machine", machine)[1]


def test_explain():
    code, out = invoke("conv2d", "--machine", "virtual.gemv", "--explain", "i<-k*p k<-c")
    assert code == 0 and "image would need two elements in slot" in out and "p moves image" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("conv9d",), "unknown operator 'conv9d'"),
        (("conv2d", "--shape", "z=3"), "operator conv2d has no extent 'z'"),
        (("conv2d", "--shape", "n"), "'n' is not NAME=INT"),
        (("conv2d", "--machine", "abacus"), "there is no machine 'abacus'"),
        (("conv2d", "--instruction", "nope"), "has no instruction 'nope'"),
        (("conv2d", "--space", "full"), "space='full' is unknown"),
    ],
)
def test_errors_name_the_way_out(args, message):
    code, out = invoke(*args)
    assert code == 1 and message in out and "hint:" in out
