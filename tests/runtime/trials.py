"""Tasks and records for tests."""

from __future__ import annotations

import numpy as np

from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel
from tilewright.mapping.operators import FLOAT, build_operator
from tilewright.runtime.records import Record, Task
from tilewright.schedule import Schedule


def matmul(i: int = 8, j: int = 9, k: int = 10) -> Kernel:
    """``out[i, j] += a[i, k] * b[k, j]``."""
    return build_operator("matmul", FLOAT, i=i, j=j, k=k)


def task(i: int = 8, threads: int = 1) -> Task:
    """The task of a matrix product with ``i`` rows; it is never run."""
    return Task.of(matmul(i), load_machine("x86.avx2"), threads)


def full_record(**changes: object) -> Record:
    """A record with something in every field."""
    schedule = Schedule(matmul())
    schedule.split("i", 4)
    values = {
        "samples": (2e-3, 1e-3), "trace": schedule.trace.to_json(), "point": {"sketch": "rows", "mc": np.int64(4)}, "message": "",
        "estimate": np.float64(1.5e-3), "author": "xgb", "seed": np.int64(7), "session": "s1",
    }  # fmt: skip
    return Record(task(), "ok", **{**values, **changes})
