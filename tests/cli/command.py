"""The ``tilewright`` command, run in this process."""

from __future__ import annotations

import re

from typer.testing import CliRunner, Result

from tilewright.cli.app import build_app


def tilewright(*args: str) -> Result:
    """Exit code and output (stdout and stderr together) of ``tilewright args...``."""
    return CliRunner().invoke(build_app(), list(args))


def words(text: str) -> str:
    """``text`` on one line, without the frames that error boxes draw."""
    return re.sub(r"[\s│]+", " ", text)
