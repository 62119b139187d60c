"""The page: a valid document that loads nothing, and whose figures are those of the records."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from tests.report.document import Element, exact, height_of, parse, place_of, table_of
from tests.report.sessions import filled, matmul, search, trace_of

from tilewright.report import page, write
from tilewright.report.findings import find
from tilewright.report.trials import DOTS
from tilewright.runtime.peak import Peak
from tilewright.runtime.records import Record, RecordStore, Session, Task
from tilewright.util.errors import RuntimeFailure

PEAKS = {(1, "f32"): Peak(1, "f32", 512, 1e11, 1e10)}


def read(path: Path) -> Element:
    return parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return filled(tmp_path_factory.mktemp("records") / "r.db", trials=40)


@pytest.fixture(scope="module")
def document(store: RecordStore, tmp_path_factory: pytest.TempPathFactory) -> Element:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write(store, path, peaks=PEAKS)
    return read(path)


# --- the document ---------------------------------------------------------------------------


def test_the_page_is_a_document_with_all_its_parts(document: Element) -> None:
    assert document.one("html").attributes["lang"] == "en"
    assert [s.attributes["id"] for s in document.all("section")] == ["winners", "split", "roofline", "tasks", "notes", "conditions"]
    assert [h.text for h in document.all("h1")] == ["Tuning report: model.onnx"] == [document.one("head").one("title").text]
    identities = [e.attributes["id"] for e in document.walk() if "id" in e.attributes]
    assert len(identities) == len(set(identities))
    targets = {a.attributes["href"] for a in document.all("a")}
    assert targets and targets <= {f"#{i}" for i in identities}


def test_the_page_needs_nothing_from_anywhere(document: Element) -> None:
    assert not {e.tag for e in document.walk()} & {"script", "link", "img", "iframe", "object", "image", "use"}
    names = {k for e in document.walk() for k in e.attributes}
    assert not any(n.startswith("on") or n in ("src", "srcset", "xlink:href") for n in names)
    css = document.one("style").text
    assert "url(" not in css and "@import" not in css and "prefers-color-scheme:dark" in css
    [policy] = [m for m in document.all("meta") if m.attributes.get("http-equiv")]
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_charts_are_described_and_tables_have_headings(document: Element) -> None:
    charts = [s for s in document.all("svg") if "aria-hidden" not in s.attributes]
    assert len(charts) == 2 + 2 * 3  # bars, roofline; two for each task
    for chart in charts:
        assert chart.attributes["role"] == "img" and chart.attributes["aria-label"]
        assert next(c.tag for c in chart.children if isinstance(c, Element)) == "title"
        assert chart.attributes["viewbox"]
        rings = chart.all("circle")
        assert all(r.one("title").text for r in rings)
    for table in document.all("table"):
        assert table.one("caption").text and all(th.attributes["scope"] == "col" for th in table.all("th"))


# --- figures ---------------------------------------------------------------------------------


def test_winners_are_those_of_the_records(document: Element, store: RecordStore) -> None:
    rows = table_of(document, "The fastest schedule of each task")
    assert len(rows) == 3
    for row in rows:
        task = store.task(row["task"].one("a").attributes["href"].removeprefix("#"))
        best = store.best(task)
        assert best is not None and exact(row["with tuning"]) == best.seconds
        assert exact(row["without tuning"]) == 2.1e-3 and exact(row["gain"]) == 2.1e-3 / best.seconds
        assert (row["trials"].text, row["failed"].text, row["final comparison"].text) == ("40", "2", "faster in 2 of 2 rounds")
        assert row["decisions"].text == f"sketch=rows, tile={best.point['knobs']['tile']}"
        number = int(re.match(r"trial (\d+), xgb", row["found by"].text)[1])
        assert store.records(task, role="trial")[number - 1].point == best.point


def test_time_split_weighs_kernels_by_their_calls(document: Element, store: RecordStore) -> None:
    *rows, total = table_of(document, "Time of one run by kernel")
    weights = store.sessions()[0].tasks
    before = sum(w * 2.1e-3 for w in weights.values())
    after = sum(w * store.best(key).seconds for key, w in weights.items())
    assert exact(total["without tuning"]) == pytest.approx(before) and exact(total["with tuning"]) == pytest.approx(after)
    assert exact(total["gain"]) == pytest.approx(before / after)
    assert sum(exact(r["with tuning"]) for r in rows) == pytest.approx(after)
    assert [r["share"].text for r in rows] == ["50.0%", "33.3%", "16.7%"]
    bars = document.one("section", id="split").one("svg", class_="bars").all("rect")
    widths = [r.number("width") for r in bars]
    assert len(widths) == 6 and sum(widths[:3]) / sum(widths[3:]) == pytest.approx(before / after, rel=0.01)


def test_curves_show_what_was_measured(document: Element, store: RecordStore) -> None:
    for part in document.all("div", class_="task"):
        task = store.task(part.attributes["id"])
        trials = store.records(task, role="trial")
        progress, estimates = (f.one("svg") for f in part.all("figure"))
        best_so_far = progress.one("polyline", class_="c0")
        corners = [tuple(map(float, p.split(","))) for p in best_so_far.attributes["points"].split()]
        heights = [y for _, y in corners]
        assert heights == sorted(heights), "smaller times are lower on the page"
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners)), "the best holds until it is beaten"
        assert height_of(progress, heights[-1]) == pytest.approx(min(r.seconds for r in trials if r.seconds), rel=0.01)
        winner = progress.one("circle", class_="winner")
        assert height_of(progress, winner.number("cy")) == pytest.approx(store.best(task).seconds, rel=0.01)
        dots = progress.one("path", class_="c0")
        assert dots.attributes["d"].count("M") == sum(r.status == "ok" for r in trials) == 38
        assert progress.one("path", class_="fail").attributes["d"].count("M") == 2
        base = estimates.one("circle", class_="default")
        assert place_of(estimates, base.number("cx")) == pytest.approx(1.5e-3, rel=0.01)
        assert height_of(estimates, base.number("cy")) == pytest.approx(2e-3, rel=0.01)


def test_improvements_are_listed_for_those_who_do_not_see_the_curve(document: Element, store: RecordStore) -> None:
    for part in document.all("div", class_="task"):
        rows = table_of(part, "Improvements")
        trials = store.records(part.attributes["id"], role="trial")
        assert [exact(r["time"]) for r in rows] == [trials[int(r["trial"].text) - 1].seconds for r in rows]
        assert exact(rows[-1]["time"]) == min(r.seconds for r in trials if r.seconds)


def test_roofline_places_kernels_by_arithmetic_and_time(document: Element, store: RecordStore) -> None:
    chart = document.one("section", id="roofline").one("figure").one("svg")
    rings = {re.match(r"gmm \((\w+)\)", c.one("title").text)[1]: c for c in chart.all("circle", class_="winner")}
    assert len(rings) == 3 == len(chart.all("circle", class_="default"))
    for key, ring in rings.items():
        task = store.task(key)
        rows = int(re.search(r"f32\[(\d+), 64\]", task.program)[1])
        flops, nbytes = 2 * rows * 64 * 64, 4 * (2 * rows * 64 + 64 * 64)
        assert height_of(chart, ring.number("cy")) == pytest.approx(flops / store.best(task).seconds, rel=0.03)
        assert place_of(chart, ring.number("cx")) == pytest.approx(flops / nbytes, rel=0.03)
    corners = [tuple(map(float, p.split(","))) for p in chart.one("polyline", class_="roof").attributes["points"].split()]
    assert height_of(chart, corners[1][1]) == pytest.approx(1e11, rel=0.03) and corners[1][1] == corners[2][1]
    assert place_of(chart, corners[1][0]) == pytest.approx(1e11 / 1e10, rel=0.03), "slope and ceiling meet at peak / bandwidth"


def test_no_roof_is_drawn_for_records_of_another_computer(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        store.add(Record(matmul(), "ok", (1e-3,), host="elsewhere"))
        write(store, tmp_path / "r.html")
    part = read(tmp_path / "r.html").one("section", id="roofline")
    assert not part.one("figure").all("polyline") and "another computer" in part.text and "No measured limits" in part.text


def test_a_report_goes_through_links_and_into_pipes(store: RecordStore, tmp_path: Path) -> None:
    page, link, pipe = tmp_path / "page.html", tmp_path / "link.html", tmp_path / "pipe"
    link.symlink_to(page)
    write(store, link, peaks=PEAKS)
    assert link.is_symlink() and page.read_text().startswith("<!DOCTYPE html>")
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        received = reader.submit(pipe.read_text)
        write(store, pipe, peaks=PEAKS)
        assert received.result(timeout=60).endswith("</html>\n")
    assert pipe.is_fifo(), "what is no file is written to, not replaced"


def test_conditions_notes_and_failures_are_told(document: Element, store: RecordStore) -> None:
    facts = {r["what"].text: r["value"].text for r in table_of(document, "Conditions")}
    record = store.records()[0]
    assert facts["computers"] == record.host and facts["machines"] == "x86.avx2" and facts["threads"] == "1"
    assert all(f"{k} {v}" in facts["versions"] for k, v in record.versions.items())
    assert facts["first and last record"].startswith(record.date[:19]) and "load" in facts["this page"]
    [session] = table_of(document, "Sessions")
    assert session["session"].text == store.sessions()[0].id and session["budget"].text == "120 trials"
    rows = table_of(document, "Sittings")
    assert [r["load before"].text for r in rows] == ["0.25", "3.50"]
    for row, noted in zip(rows, store.sessions()[0].sittings, strict=True):
        assert (row["begun"].text, row["computer"].text, row["threads"].text) == (noted["date"][:19], noted["host"], "2")
        assert row["processor"].text == noted["processor"] and f"llvmlite {noted['versions']['llvmlite']}" in row["versions"].text
    verdicts = {r["verdict"].text: r["count"].text for r in table_of(document, "Trials and baselines by verdict")}
    assert verdicts == {"ok": "117", "wrong": "6", "all": "123"}
    failed = table_of(document.all("div", class_="task")[0], "Failed trials")
    assert [(r["verdict"].text, r["message"].text) for r in failed] == [("wrong", "c[0, 0] is off by 0"), ("wrong", "c[0, 0] is off by 1")]


def test_the_winner_s_schedule_is_in_the_page(document: Element, store: RecordStore) -> None:
    from tilewright.schedule.trace import Trace

    for part in document.all("div", class_="task"):
        best = store.best(part.attributes["id"])
        assert str(Trace.from_json(best.trace)) in [p.text for p in part.all("pre")]
        assert store.task(part.attributes["id"]).program in [p.text for p in part.all("pre")]


# --- what may be in records ------------------------------------------------------------------

HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;]]>--><!--\x00\x1b[31m"


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    task = Task(matmul().program, HOSTILE, "m:1", 1, (HOSTILE,))
    with RecordStore(tmp_path / "r.db") as store:
        store.add_tasks([task, matmul(64)])
        weights = {task.key: 2.0, matmul(64).key: 1.0}
        odd = ({"host": HOSTILE, "load": HOSTILE, "versions": HOSTILE}, {"versions": {HOSTILE: HOSTILE}}, {})
        session = store.save(Session(HOSTILE, weights, HOSTILE, options={HOSTILE: HOSTILE}, host=HOSTILE, id="s" + HOSTILE, sittings=odd))
        said = {"session": session.id, "author": HOSTILE, "host": HOSTILE, "versions": {HOSTILE: HOSTILE}, "date": HOSTILE}
        point = {HOSTILE: HOSTILE}
        store.add(
            Record(task, "ok", (1e-3,), HOSTILE, point, HOSTILE, 1e-3, **said), Record(task, "crash", message=HOSTILE, **said),
            *(Record(task, "ok", (n * 1e-3,), HOSTILE, {"n": n}, estimate=n * 2e-3, **said) for n in (2, 3, 4)),
            Record(task, "ok", (2e-3,), HOSTILE, {"n": 9}, role="baseline", **said), Record(matmul(64), "ok", (2e-3,), **said),
        )  # fmt: skip
        write(store, tmp_path / "r.html", peaks={})
    page = read(tmp_path / "r.html")
    assert not page.all("script") and not page.all("img")
    assert not any(k.startswith("on") for e in page.walk() for k in e.attributes)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert page.one("h1").text == f"Tuning report: {shown}"
    assert any(shown in r["message"].text for r in table_of(page, "Failed trials"))
    assert "\x00" not in (tmp_path / "r.html").read_text()


def test_tasks_that_never_worked_or_never_ran_are_named(tmp_path: Path) -> None:
    broken, never = matmul(), matmul(64)
    with RecordStore(tmp_path / "r.db") as store:
        store.add_tasks([broken, never])
        session = store.save(Session("m", {broken.key: 1.0, never.key: 1.0}, "xgb"))
        store.add(*(Record(broken, status, message="no", session=session.id) for status in ("crash", "timeout", "crash")))
        write(store, tmp_path / "r.html")
    page = read(tmp_path / "r.html")
    notes = page.one("section", id="notes").text
    assert f"Nothing worked for: gmm ({broken.key[:8]})" in notes and "1 kernels were never tried: gmm" in notes
    assert f"Still running, or killed: {session.id}" in notes
    [row] = table_of(page, "The fastest schedule of each task")
    assert (row["trials"].text, row["failed"].text, row["found by"].text) == ("3", "3", "nothing worked")
    assert [s.attributes["id"] for s in page.all("section")] == ["winners", "tasks", "notes", "conditions"]


def test_a_damaged_trace_is_shown_as_it_is(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        store.add(Record(matmul(), "ok", (1e-3,), "{not a trace"))
        write(store, tmp_path / "r.html", peaks={})
    assert "{not a trace" in [p.text for p in read(tmp_path / "r.html").all("pre")]


def test_several_authors_have_curves_of_their_own(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        for n, author in enumerate(("random", "xgb")):
            store.add(*search(task, f"s{n}", trials=10 + n, author=author, seed=n))
        write(store, tmp_path / "r.html", everything=True, peaks={})
    page = read(tmp_path / "r.html")
    progress = page.one("div", class_="task").all("figure")[0].one("svg")
    titles = {c: progress.one("polyline", class_=c).one("title").text for c in ("c0", "c1")}
    assert titles == {"c0": "best so far, random, seed 0, session s0", "c1": "best so far, xgb, seed 1, session s1"}
    assert {s.text for s in page.all("p", class_="legend")[-1].all("span")} >= {"random", "xgb", "without tuning", "winner"}


# --- size, speed, files ----------------------------------------------------------------------


def test_five_thousand_trials_in_two_seconds_and_one_megabyte(tmp_path: Path) -> None:
    with filled(tmp_path / "r.db", tasks=10, trials=500) as store:
        start = time.process_time()
        write(store, tmp_path / "r.html", peaks=PEAKS)
        assert time.process_time() - start < 2.0
    assert (tmp_path / "r.html").stat().st_size < 1_000_000


def test_more_trials_than_can_be_told_apart_are_thinned_and_the_fastest_stay(tmp_path: Path) -> None:
    task = matmul()
    with RecordStore(tmp_path / "r.db") as store:
        trace = trace_of(task)
        times = [1e-4 if n == 1 else 1e-3 + 1e-7 * (n * 7919 % 20011) for n in range(3 * DOTS)]
        store.add(*(Record(task, "ok", (t,), trace, {"n": n}, author="xgb") for n, t in enumerate(times)))
        text = page(find(store))
    [progress, *_] = parse(text).one("div", class_="task").all("svg", role="img")
    assert DOTS // 2 <= progress.one("path", class_="c0").attributes["d"].count("M") <= DOTS
    assert f"{3 * DOTS} trials" in progress.one("desc").text and "fastest 100.0 us" in progress.one("desc").text
    lowest = max(float(y) for y in re.findall(r" ([\d.]+)h0", progress.one("path", class_="c0").attributes["d"]))
    assert height_of(progress, lowest) == pytest.approx(1e-4, rel=0.01)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, store: RecordStore) -> None:
    with pytest.raises(RuntimeFailure, match="cannot write the report"):
        write(store, tmp_path / "none" / "r.html", peaks={})
    old = tmp_path / "r.html"
    old.write_text("old")
    with pytest.raises(RuntimeFailure, match="no sessions begin with"):
        write(store, old, "zz", peaks={})
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]
