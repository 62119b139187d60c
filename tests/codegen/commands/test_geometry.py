"""Extents that an instruction demands to be equal: those its conditions say so of, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.codegen.commands.geometry import equal
from tilewright.hw import axes, instruction, upto
from tilewright.hw.constraint import Handle, Require, extent
from tilewright.ir import expr as ex
from tilewright.ir.types import i8

SPAD, DRAM = "spad", "dram"


@instruction(latency=1)
def copy(dst: i8[8, 8] @ SPAD, src: i8[8, 8] @ DRAM):
    r, s = axes(upto(8), upto(8))
    dst[r, s] = src[r, s]


R, S = extent(Handle("r")), extent(Handle("s"))


@pytest.mark.parametrize(
    ("condition", "equals"),
    [
        (ex.compare("==", R, S), True),
        (ex.compare("==", S, R), True),
        (ex.compare(">=", R, S), False),  # holds for 2 and 2, and not for 1 and 2
        (ex.compare("<=", S, R), False),
        (ex.compare("==", R, ex.Const(8, R.dtype)), False),
    ],
    ids=str,
)
def test_only_equality_makes_axes_equal(condition: ex.Expr, equals: bool) -> None:
    i = replace(copy, constraints=(Require(condition, str(condition)),))
    assert (equal(i, "r"), equal(i, "s")) == ((["s"], ["r"]) if equals else ([], []))
