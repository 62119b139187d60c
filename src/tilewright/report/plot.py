"""A chart: two axes and what is drawn between them, as inline SVG with words for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tilewright.report.markup import Markup, join, number, tag
from tilewright.report.scale import Scale

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, where, and how its ticks read."""

    label: str
    scale: Scale
    tick: Callable[[float], str]


@dataclass(slots=True)
class Plot:
    """A chart under construction: later marks lie over earlier ones. ``title`` and ``summary`` say what is to be seen."""

    title: str
    summary: str
    x: Axis
    y: Axis
    width: float = 460.0
    height: float = 260.0
    left: float = 64.0
    _marks: list[Markup] = field(default_factory=list)

    right, top, bottom = 12.0, 12.0, 42.0

    def at(self, point: Point) -> Point:
        """Coordinates of ``point``; what lies outside the axes is drawn on their border."""
        x = min(1.0, max(0.0, self.x.scale.place(point[0])))
        y = min(1.0, max(0.0, self.y.scale.place(point[1])))
        return (
            self.left + x * (self.width - self.left - self.right),
            self.top + (1.0 - y) * (self.height - self.top - self.bottom),
        )

    def line(self, points: Sequence[Point], style: str, title: str = "") -> None:
        """Straight lines through ``points``."""
        places = " ".join(f"{number(x)},{number(y)}" for x, y in map(self.at, points))
        self._marks.append(tag("polyline", _title(title), points=places, class_=f"line {style}"))

    def steps(self, points: Sequence[Point], style: str, title: str = "") -> None:
        """A line that keeps its height until the next point."""
        corners = [c for before, after in pairwise(points) for c in (before, (after[0], before[1]))]
        self.line([*corners, points[-1]], style, title)

    def dots(self, points: Iterable[Point], style: str, title: str = "") -> None:
        """Many small dots as one path: thousands of elements would make the page large and slow."""
        path = "".join(f"M{number(x)} {number(y)}h0" for x, y in map(self.at, points))
        if path:
            self._marks.append(tag("path", _title(title), d=path, class_=f"dots {style}"))

    def ring(self, point: Point, style: str, title: str) -> None:
        """One mark that can be pointed at."""
        x, y = self.at(point)
        self._marks.append(tag("circle", _title(title), cx=x, cy=y, r=5.0, class_=f"ring {style}"))

    def svg(self) -> Markup:
        """The chart."""
        return tag(
            "svg", _title(self.title), tag("desc", self.summary), self._frame(), *self._marks,
            viewBox=f"0 0 {number(self.width)} {number(self.height)}", role="img", aria_label=f"{self.title}. {self.summary}",
        )  # fmt: skip

    def _frame(self) -> Markup:
        """Grid lines, tick texts, labels."""
        x0, x1 = self.left, self.width - self.right
        y0, y1 = self.height - self.bottom, self.top
        parts = []
        for value in self.x.scale.ticks():
            x = x0 + self.x.scale.place(value) * (x1 - x0)
            parts += [tag("line", x1=x, x2=x, y1=y0, y2=y1), tag("text", self.x.tick(value), x=x, y=y0 + 14, text_anchor="middle")]
        for value in self.y.scale.ticks():
            y = y0 + self.y.scale.place(value) * (y1 - y0)
            parts += [tag("line", x1=x0, x2=x1, y1=y, y2=y), tag("text", self.y.tick(value), x=x0 - 5, y=y + 4, text_anchor="end")]
        middle = (y0 + y1) / 2
        parts.append(tag("text", self.x.label, x=(x0 + x1) / 2, y=self.height - 6, text_anchor="middle"))
        parts.append(
            tag("text", self.y.label, text_anchor="middle", transform=f"translate(12 {number(middle)}) rotate(-90)"),
        )
        return tag("g", *parts, class_="axes")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """What the styles of a chart mean: (style, words)."""
    return tag("p", *(join(_key(style), tag("span", words)) for style, words in entries), class_="legend")


def _key(style: str) -> Markup:
    mark = (
        tag("circle", cx=12.0, cy=6.0, r=4.5, class_=style)
        if style.startswith("ring")
        else tag("line", x1=1.0, x2=23.0, y1=6.0, y2=6.0, class_=style)
    )
    return tag("svg", mark, viewBox="0 0 24 12", width=24.0, height=12.0, aria_hidden="true")


def _title(words: str) -> Markup | None:
    return tag("title", words) if words else None
