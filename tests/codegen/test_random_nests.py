"""Random nests of all types, in loops of every kind: compiled code and the reference against the interpreter."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from tests.codegen.conftest import compare, execute
from tests.codegen.random_nests import RandomNests, small_array

from tilewright.hw.machine import Machine
from tilewright.ir.interpreter import interpret
from tilewright.ir.reference import reference
from tilewright.ir.stmt import all_buffers
from tilewright.runtime import build
from tilewright.util.errors import ExecutionError, IRTypeError

#: Sums of large numbers (a negative float as an unsigned integer) are rounded in another order.
ROUNDED = {"f16": 0.02, "bf16": 0.1, "f32": 1e-4, "f64": 1e-9}


def agree(seed: int, host: Machine) -> bool:
    """Whether program ``seed`` has a meaning; then everything that runs it has the same results."""
    nests = RandomNests(Random(seed))
    try:
        kernel = nests.build()
    except IRTypeError:  # an operator that these types do not have
        return False
    rng = np.random.default_rng(seed)
    sizes = {v.name: nests.rows for v in kernel.sizes}
    whole = not any(b.dtype.is_float for b in all_buffers(kernel))
    arrays = {b.name: small_array(rng, b, sizes, whole) for b in kernel.args}
    want = {n: a.copy() for n, a in arrays.items()}
    try:
        interpret(kernel, want, sizes)
    except ExecutionError:  # e.g. NaN as an integer
        return False
    for run in ("reference", "compiled", *(("threads",) if seed % 4 == 0 else ())):
        got = {n: a.copy() for n, a in arrays.items()}
        match run:
            case "reference":
                reference(kernel, got, sizes)
            case "compiled":
                execute(kernel, host, got, sizes)
            case "threads":
                build(kernel, host, threads=2, cache=False)(*got.values(), **sizes)
        for b in kernel.args:
            try:
                compare(b, got[b.name], want[b.name], ROUNDED.get(str(b.dtype), 0.0))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, {run}:\n{kernel}\n{error}") from error
    return True


def test_random_nests(host: Machine) -> None:
    assert sum(agree(seed, host) for seed in range(12)) >= 8


@pytest.mark.slow
def test_a_thousand_random_nests(host: Machine) -> None:
    with np.errstate(all="ignore"):
        assert sum(agree(seed, host) for seed in range(1000, 2000)) > 900
