"""A page as a tree, read by the standard library's parser; what is not well nested is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements below this one, in order; ``class_`` names one of the classes."""
        return [e for e in self.walk() if e.tag == tag and all(e._has(k, v) for k, v in attributes.items())]

    def one(self, tag: str, **attributes: str) -> Element:
        [found] = self.all(tag, **attributes)
        return found

    def walk(self) -> Iterator[Element]:
        for c in self.children:
            if isinstance(c, Element):
                yield c
                yield from c.walk()

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def number(self, name: str) -> float:
        return float(self.attributes[name] or "")

    def _has(self, name: str, value: str) -> bool:
        if name == "class_":
            return value in (self.attributes.get("class") or "").split()
        return self.attributes.get(name) == value


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [k for k, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Element:
    """The document's root; AssertionError for elements that are not closed, or closed in another order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
    return reader.open[0]


def rows(table: Element) -> list[dict[str, Element]]:
    """Cells of a table's body by the heading of their column."""
    names = [th.text for th in table.one("thead").all("th")]
    found = [tr.all("td") for tr in table.one("tbody").all("tr")]
    assert all(len(cells) == len(names) for cells in found), "a row has more or fewer cells than there are headings"
    return [dict(zip(names, cells, strict=True)) for cells in found]


def table_of(page: Element, caption: str) -> list[dict[str, Element]]:
    """Rows of the only table with this caption."""
    [found] = [t for t in page.all("table") if t.one("caption").text == caption]
    return rows(found)


def exact(cell: Element) -> float:
    """The figure of a cell in full precision."""
    return float(cell.one("data").attributes["value"] or "")


_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "GFLOP/s": 1e9, "MFLOP/s": 1e6, "kFLOP/s": 1e3, "TFLOP/s": 1e12, "FLOP/s": 1.0, "": 1.0}


def height_of(plot: Element, y: float) -> float:
    """The value at height ``y`` of a chart with a logarithmic axis, read off its tick texts as a person would."""
    return _read(plot, y, "y", "end")


def place_of(plot: Element, x: float) -> float:
    """The value at ``x`` of a chart with a logarithmic axis along the bottom."""
    return _read(plot, x, "x", "middle")


def _read(plot: Element, place: float, axis: str, anchor: str) -> float:
    ticks = []
    texts = [
        t for t in plot.one("g", class_="axes").all("text") if t.attributes["text-anchor"] == anchor and "transform" not in t.attributes
    ]
    for t in texts:
        match = re.fullmatch(r"([\d.e+-]+) ?(\S*)", t.text)
        if match and match[2] in _UNITS:
            ticks.append((t.number(axis) - (4 if axis == "y" else 0), math.log(float(match[1]) * _UNITS[match[2]])))
    (p0, v0), (p1, v1) = ticks[0], ticks[-1]
    return math.exp(v0 + (place - p0) / (p1 - p0) * (v1 - v0))
