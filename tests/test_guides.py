"""Programs of the guides run. (Those about mapping, rules, machines and lowering are tried beside their packages.)"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.cost.estimate import estimate
from tilewright.cost.features import extractor, features
from tilewright.cost.traffic import analyse
from tilewright.hw import load_machine
from tilewright.ir.types import i8, i32
from tilewright.lang import parse
from tilewright.mapping.operators import build_operator
from tilewright.space.default import default_schedule

DOCS = Path(__file__).parents[1] / "docs"


def run(page: str, tmp_path: Path, chosen: slice, *, shorter: tuple[tuple[str, str], ...] = (), **given: object) -> dict[str, Any]:
    """The ``chosen`` Python blocks of a page, in one file, as kernels are read from their source. What the page assumes is ``given``."""
    text = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)[chosen])
    for old, new in shorter:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "guide.py").write_text(text)
    return runpy.run_path(str(tmp_path / "guide.py"), init_globals=given)


def test_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a trace
    found = run("simulate", tmp_path, slice(0, 2))
    assert (found["memory"].array(found["gemm"].c, (64, 64), np.int8) == 64).all()
    assert found["run"].cycles > 64**3 // 256 and (tmp_path / "trace.json").exists()


def test_simulate_on_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ziglang")
    pytest.importorskip("unicorn")
    monkeypatch.chdir(tmp_path)
    found = run("simulate", tmp_path, slice(0, 4))
    assert "Outcome(exit_code=0, console='', custom=12)" in capsys.readouterr().out
    assert found["elf"][:4] == b"\x7fELF"


def test_codesign(tmp_path: Path) -> None:
    assert run("codesign", tmp_path, slice(0, 1))["cost"].cycles > 0
    found = run("codesign", tmp_path, slice(2, 3), shorter=(("100_000", "2_000"),))["found"]
    assert found.hardware["dim"] >= 1


def test_commands(tmp_path: Path) -> None:
    machine = load_machine("gemmini")
    kernel = build_operator("matmul", types=(i8, i8, i32), i=32, j=32, k=32)
    scheduled = default_schedule(kernel, machine).kernel
    arrays = {b.name: np.ones((32, 32), b.dtype.to_numpy()) for b in kernel.args}
    names = dict(zip("abc", arrays.values(), strict=True))
    renamed = ('{"a": a, "b": b, "c": c}', "arrays")
    shorter = (renamed, ('forms=("loop_ws",))  # searches', 'forms=("loop_ws",), measured=2)  # searches'))
    found = run("commands", tmp_path, slice(0, 2), shorter=shorter, kernel=scheduled, as_written=kernel, arrays=arrays, **names)
    assert found["parse_program"](str(found["program"])) == found["program"]
    assert found["found"].cycles > 0 and any((a == 32).all() for a in arrays.values())


def test_cost(tmp_path: Path) -> None:
    program = run("cost", tmp_path, slice(0, 1))["program"]
    machine, env = load_machine("x86.avx512"), {"m": np.array([4, 8]), "n": np.array([32, 16])}
    assert len(analyse(program, {"m": 4, "n": 32}, machine)) >= 3
    assert (estimate(program, machine, env, 1) > 0).all()
    assert features(program, machine, env).shape == (2, 2, 194) and len(extractor(program, machine, 1)(env)) == 2
    assert parse(str(program)) == program
