"""doctor, machine and cache: what they say about this computer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import tilewright

from tilewright.cli import doctor
from tilewright.hw import list_machines
from tilewright.util.errors import RuntimeFailure

ROOT = Path(__file__).parents[2]


def test_doctor_finds_nothing_broken_here() -> None:
    found = {f.subject: f for f in doctor.examine()}
    assert not [f for f in found.values() if f.state == doctor.BROKEN]
    assert "compiled and right" in found["a kernel"].seen and "cores" in found["machine"].seen
    assert tilewright("doctor").exit_code == 0


def test_doctor_says_what_to_do_about_a_broken_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeFailure("the code generator is on strike", hint="give it a rest")

    monkeypatch.setattr("tilewright.runtime.module.build", broken)
    result = tilewright("doctor")
    assert result.exit_code == 3
    assert "on strike" in result.output and "give it a rest" in result.output and "broken" in result.output


def test_doctor_notes_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(doctor.OPTIONAL, "surely-not-installed", "nothing")
    monkeypatch.setenv("TILEWRIGHT_THREADS", "500")
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "new"))
    found = {f.subject: f for f in doctor.examine()}
    assert found["surely-not-installed"].advice == "for nothing: pip install surely-not-installed"
    assert found["threads"].state == doctor.NOTE and "more threads than processors" in found["threads"].advice
    assert found["build cache"].state == doctor.OK and "made on first use" in found["build cache"].seen


def test_doctor_reports_a_cache_setting_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE_LIMIT", "lots")
    found = {f.subject: f for f in doctor.examine()}
    assert found["cache"].state == doctor.BROKEN and "TILEWRIGHT_CACHE_LIMIT='lots'" in found["cache"].seen


def test_doctor_reports_an_unwritable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", "/proc/tilewright")
    found = {f.subject: f for f in doctor.examine()}
    assert found["build cache"].state == doctor.NOTE and "TILEWRIGHT_CACHE" in found["build cache"].advice


def test_machine_list_names_the_library() -> None:
    out = tilewright("machine", "list").output
    assert all(name in out for name in list_machines())


def test_machine_show() -> None:
    assert tilewright("machine", "show").output.startswith("machine ")
    assert "wmma_f16" in tilewright("machine", "show", "cuda.sm80").output
    assert "machine toy3" in tilewright("machine", "show", str(ROOT / "examples" / "toy_accelerator.py")).output
    missing = tilewright("machine", "show", "abacus")
    assert missing.exit_code == 1 and "there is no machine 'abacus'" in missing.output


def test_cache_info_and_clear(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    assert "0 entries" in tilewright("cache", "info").output
    assert tilewright("run", str(model), "--dim", "batch=1", "--threads", "1").exit_code == 0
    assert "\n0 entries" not in tilewright("cache", "info").output
    assert "freed" in tilewright("cache", "clear").output
    assert "0 entries, 0 B" in tilewright("cache", "info").output
