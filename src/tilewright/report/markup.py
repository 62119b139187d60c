"""HTML and SVG that cannot be broken by what is shown: text is escaped unless it was made here."""

from __future__ import annotations

import re
from html import escape

#: What may not stand in an HTML document: control characters other than tab and line ends, noncharacters.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
#: Elements without content in HTML.
_VOID = frozenset({"br", "meta"})
#: Elements of SVG that have no content when we use them.
_CLOSED = frozenset({"circle", "line", "path", "polyline", "rect"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | Markup | None


def text(value: str) -> Markup:
    """``value`` so that a browser shows exactly it; characters that no document may hold become U+FFFD."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(_FORBIDDEN.sub("\ufffd", value.encode("utf-8", "replace").decode())))


def tag(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """An element. ``class_`` and ``data_x`` become ``class`` and ``data-x``; True is a bare attribute, None and False are left out."""
    said = "".join(_attribute(k, v) for k, v in attributes.items() if v is not None and v is not False)
    inside = "".join(text(c) for c in content if c is not None)
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    if name in _CLOSED and not inside:
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{inside}</{name}>")


def join(*content: Content) -> Markup:
    """Elements one after the other."""
    return Markup("".join(text(c) for c in content if c is not None))


def number(value: float) -> str:
    """A coordinate: a tenth of a unit is finer than a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _attribute(name: str, value: str | float | bool) -> str:
    name = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{text(value if isinstance(value, str) else number(value))}"'
