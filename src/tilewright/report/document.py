"""An HTML document that needs nothing but itself, and files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tilewright.report.markup import Content, Markup, join, tag
from tilewright.report.style import CSS
from tilewright.util.errors import RuntimeFailure

#: Nothing is loaded from anywhere and no script runs, whatever the records contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, summary: Content, parts: Sequence[Markup], names: Mapping[str, str]) -> str:
    """The page: a header with links to the ``parts`` that ``names`` lists by identity (those left out have no link)."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    made = join(*parts)
    contents = tag("nav", *(tag("a", words, href=f"#{name}") for name, words in names.items() if f' id="{name}"' in made))
    body = tag("body", tag("header", tag("h1", title), tag("p", summary), contents), tag("main", *parts))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def replace(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, all of it or nothing; into what is no file (a pipe, a device) as far as it takes it.

    A link stays one: what it points to is replaced. RuntimeFailure when that is not possible.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        path = path.resolve()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise RuntimeFailure(f"cannot write the report {path}: {error.strerror}", hint="name a file in a directory that exists") from error
