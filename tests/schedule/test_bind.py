from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same

from tilewright.ir.stmt import LoopKind, find_loop
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError

MACHINE = SimpleNamespace(name="toy", units=(SimpleNamespace(name="core"),))


def test_loop_runs_on_the_unit() -> None:
    sch = Schedule(NESTS["gemm"], MACHINE)
    assert sch.bind("i", "core") == "i"
    loop = find_loop(sch.kernel, "i")
    assert (loop.kind, loop.unit) == (LoopKind.BIND, "core")
    assert_same(NESTS["gemm"], sch.kernel, {"N": 5})
    assert "machine" not in dict(sch.trace.steps[0].arguments)
    assert replay(NESTS["gemm"], sch.trace, MACHINE).kernel == sch.kernel


def test_unit_must_exist() -> None:
    with pytest.raises(ScheduleError, match="machine toy has no unit 'warp'") as e:
        Schedule(NESTS["gemm"], MACHINE).bind("i", "warp")
    assert "units: core" in str(e.value)


def test_units_are_concurrent() -> None:
    with pytest.raises(ScheduleError, match=r"bind k to core: iterations .* both update C"):
        Schedule(NESTS["gemm"], MACHINE).bind("k", "core")
    with pytest.raises(ScheduleError, match=r"bind i to core: iteration .* must run before"):
        Schedule(NESTS["seidel"], MACHINE).bind("i", "core")
