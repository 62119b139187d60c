"""Remembered default schedules: equal to a fresh search, made again whenever what decides changes, harmless when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright import lang
from tilewright.hw import Machine, load_machine
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Call, Kernel, walk
from tilewright.ir.types import f32, i8, i32, u8
from tilewright.lang import parse
from tilewright.runtime import planned as module
from tilewright.runtime.cache import build_cache
from tilewright.runtime.planned import planned
from tilewright.space.default import plan
from tilewright.space.version import DECIDING, deciding
from tilewright.util.digest import sources


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """The kernels whose spaces were searched."""
    seen: list[Kernel] = []

    def counted(kernel, *arguments, **options):
        seen.append(kernel)
        return plan(kernel, *arguments, **options)

    monkeypatch.setattr(module, "plan", counted)
    return seen


def gemm(m: int, n: int, k: int) -> Kernel:
    a, b = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n))
    return lang.build("gemm", [a, b], [lang.einsum("ik,kj->ij", a, b)])


def integer_gemm(m: int, n: int, k: int) -> Kernel:
    a, b, r = lang.tensor("a", u8, (m, k)), lang.tensor("b", i8, (k, n)), lang.reduce_axis(0, k, "k")

    def product(i: ex.Var, j: ex.Var) -> ex.Expr:
        return lang.sum(ex.cast(a[i, r], i32) * ex.cast(b[r, j], i32), [r])

    return lang.build("gemm", [a, b], [lang.compute("c", (m, n), product, dtype=i32)])


MACHINE = load_machine("x86.avx512")


def test_what_is_remembered_is_what_was_found(searches: list[Kernel]) -> None:
    kernel = gemm(48, 64, 40)
    first = planned(kernel, MACHINE, threads=2, constants=["b"])
    again = planned(kernel, MACHINE, threads=2, constants=["b"])
    fresh = plan(kernel, MACHINE, threads=2, constants=["b"])
    assert first == again and len(searches) == 1
    assert again.kernel == fresh.schedule.kernel and again.decisions == fresh.decisions
    assert any(b.layout is not None for b in again.kernel.args), "the layout of the constant is part of the entry"


def test_schedules_with_instructions_are_remembered(searches: list[Kernel]) -> None:
    kernel = integer_gemm(32, 64, 64)
    machine = load_machine("x86.vnni")
    first = planned(kernel, machine, threads=1, constants=["b"])
    assert any(isinstance(s, Call) for s in walk(first.kernel.body))
    assert planned(kernel, machine, threads=1, constants=["b"]) == first and len(searches) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"threads": 2},
        {"constants": ["b"]},
        {"machine": MACHINE.derive(name=MACHINE.name, memories={"l2": {"bandwidth": 16.0}})},
        {"machine": MACHINE.derive(name=MACHINE.name, clock_hz=MACHINE.clock_hz / 2)},
    ],
    ids=["threads", "constants", "bandwidth", "clock"],
)
def test_everything_that_decides_is_in_the_key(searches: list[Kernel], changed: dict) -> None:
    kernel = gemm(48, 64, 40)
    planned(kernel, MACHINE, threads=1)
    options = {"machine": MACHINE, "threads": 1, **changed}
    machine: Machine = options.pop("machine")
    planned(kernel, machine, **options)
    assert len(searches) == 2


def test_changed_rules_or_estimates_search_again(searches: list[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = gemm(48, 64, 40)
    planned(kernel, MACHINE, threads=1)
    monkeypatch.setattr(module, "deciding", lambda: "edited")
    planned(kernel, MACHINE, threads=1)
    assert len(searches) == 2


def test_sources_are_those_of_the_deciding_packages() -> None:
    package = Path(module.__file__).parent.parent
    assert all((package / part / "__init__.py").exists() for part in DECIDING)
    assert deciding() == sources(package, DECIDING)
    assert sources(package, ("cost",)) != sources(package, ("space",)) != sources(package, ())


VALID = json.dumps({"kernel": "@kernel\ndef k(x: f32[4]):\n    pass", "decisions": [], "refused": []})


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"kernel": 3}',
        VALID.replace("f32[4]", "f99[4]").encode(),
        VALID.replace("[]", "[[1]]", 1).encode(),
    ],
)
def test_an_entry_that_cannot_be_read_is_made_again(searches: list[Kernel], entry: bytes) -> None:
    kernel = gemm(48, 64, 40)
    first = planned(kernel, MACHINE, threads=1)
    (path,) = build_cache().root.glob("*/*.entry")
    build_cache().store(path.stem, entry)
    assert planned(kernel, MACHINE, threads=1) == first and len(searches) == 2
    assert planned(kernel, MACHINE, threads=1) == first and len(searches) == 2, "the entry was repaired"


def test_damaged_files_are_made_again(searches: list[Kernel]) -> None:
    kernel = gemm(48, 64, 40)
    first = planned(kernel, MACHINE, threads=1)
    (path,) = build_cache().root.glob("*/*.entry")
    path.write_bytes(path.read_bytes()[:-7])
    assert planned(kernel, MACHINE, threads=1) == first and len(searches) == 2


def test_programs_that_call_kernels_are_not_remembered(searches: list[Kernel]) -> None:
    """Their text does not say what the kernels do that they call."""
    callee = parse("@kernel\ndef twice(x: f32[8]):\n    for i in range(8):\n        x[i] = x[i] * 2.0")
    kernel = parse("@kernel\ndef caller(y: f32[4, 8]):\n    for j in range(4):\n        twice(y[j, 0:8])", twice=callee)
    for _ in range(2):
        planned(kernel, MACHINE, threads=1)
    assert len(searches) == 2 and not list(build_cache().root.glob("*/*.entry"))


def test_without_the_cache_nothing_is_kept(searches: list[Kernel]) -> None:
    for _ in range(2):
        planned(gemm(48, 64, 40), MACHINE, threads=1, cache=False)
    assert len(searches) == 2 and not list(build_cache().root.glob("*/*.entry"))
