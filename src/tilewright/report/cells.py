"""Tables, figures with units, parts that fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tilewright.report.markup import Content, Markup, tag
from tilewright.util.quantities import seconds_text


def duration(seconds: float | None) -> Markup | None:
    """``1.23 ms``, with the exact figure for programs that read the page."""
    return None if seconds is None else tag("data", seconds_text(seconds), value=repr(seconds))


def ratio(value: float | None) -> Markup | None:
    """``1.42x``, exact as :func:`duration`."""
    return None if value is None else tag("data", f"{value:.2f}x", value=repr(value))


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Content]], figures: Sequence[str] = ()) -> Markup:
    """A table with a heading for every column, those of ``figures`` aligned right; scrolls when it is wider than the page."""
    right = ["n" if c in figures else None for c in columns]
    head = tag("tr", *(tag("th", c, scope="col", class_=k) for c, k in zip(columns, right, strict=True)))
    body = [tag("tr", *(tag("td", c, class_=k) for c, k in zip(row, right, strict=True))) for row in rows]
    return tag("div", tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body)), class_="wide")


def folded(summary: str, *content: Content, opened: bool = False) -> Markup:
    """A part that is shown when its summary is clicked: without a script, and found by a search in the page."""
    return tag("details", tag("summary", summary), *content, open=opened)


def section(title: str, identity: str, *content: Content) -> Markup:
    """A titled part of the page."""
    return tag("section", tag("h2", title), *content, id=identity)


def short(text: str, limit: int) -> str:
    """``text``, cut where a column ends."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
