"""The nests agree with their oracles under the interpreter (the fast reference: test_reference.py)."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ir.nests import NESTS

from tilewright.ir.interpreter import interpret
from tilewright.ir.verify import verify
from tilewright.lang import parse


@pytest.mark.parametrize("name", NESTS)
def test_nest_agrees_with_its_oracle(name: str) -> None:
    nest = NESTS[name]
    verify(nest.kernel)
    for seed in range(3):
        got, want = nest.arguments(seed), nest.arguments(seed)
        interpret(nest.kernel, got)
        nest.oracle(want)
        for array in want:
            np.testing.assert_allclose(got[array], want[array], rtol=1e-9, atol=1e-12, err_msg=f"{name}.{array}")


@pytest.mark.parametrize("name", NESTS)
def test_nest_prints_as_it_parses(name: str) -> None:
    assert parse(str(NESTS[name].kernel)) == NESTS[name].kernel
