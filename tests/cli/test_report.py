"""tilewright report: a page from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import tilewright, words
from tests.report.document import parse
from tests.report.sessions import filled, matmul, search

from tilewright.runtime.records import RecordStore, Session


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordStore:
    """A file with one session of two tasks, and records of another author without a session."""
    monkeypatch.setenv("TILEWRIGHT_RECORDS", str(tmp_path / "records.db"))
    store = filled(tmp_path / "records.db", tasks=2, trials=10)
    store.add(*search(matmul(), "", trials=5, author="random"))
    return store


def test_a_page_of_the_latest_session_or_of_everything(records: RecordStore, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    result = tilewright("report", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "out.html: model.onnx, 20 trials of 2 tasks" in words(result.output)
    assert parse(out.read_text()).one("h1").text == "Tuning report: model.onnx"
    named = tilewright("report", str(records.path), "--session", records.sessions()[0].id[:10], "-o", str(out))
    assert named.exit_code == 0 and "20 trials" in named.output
    everything = tilewright("report", "--all", "-o", str(out))
    assert everything.exit_code == 0 and "25 trials of 2 tasks" in everything.output


def test_the_fusion_plan_of_a_model(records: RecordStore, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    result = tilewright("report", "-o", str(out), "--model", str(model), "--dim", "batch=1", "--fusion", "none", "--machine", "x86.avx2")
    assert result.exit_code == 0, result.output
    plan = parse(out.read_text()).one("section", id="fusion")
    assert len(plan.all("rect", class_="op")) == len(plan.all("rect", class_="group")) > 20
    unbound = tilewright("report", "-o", str(out), "--model", str(model))
    assert unbound.exit_code == 1 and "batch" in unbound.output and "Traceback" not in unbound.output


def test_what_cannot_be_reported_is_explained(records: RecordStore, tmp_path: Path) -> None:
    empty = records.save(Session("later.onnx", {matmul().key: 1.0}, id="20991231-000000-ffffff", created="2099-12-31T00:00:00+00:00"))
    out = tmp_path / "out.html"
    nothing = tilewright("report", "--session", empty.id, "-o", str(out))
    assert nothing.exit_code == 1 and "has no records yet" in words(nothing.output) and "hint:" in nothing.output
    unknown = tilewright("report", "--session", "zz", "-o", str(out))
    assert unknown.exit_code == 1 and "no sessions begin with 'zz'" in words(unknown.output)
    absent = tilewright("report", str(tmp_path / "none.db"), "-o", str(out))
    assert absent.exit_code == 1 and "there are no records" in absent.output
    both = tilewright("report", "--all", "--session", empty.id, "-o", str(out))
    assert both.exit_code == 2 and "leave --session out" in words(both.output)
    assert not out.exists()
    unwritable = tilewright("report", "-o", str(tmp_path / "none" / "x.html"))
    assert unwritable.exit_code == 1 and "cannot write the report" in words(unwritable.output)
