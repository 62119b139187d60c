"""The ``tilewright`` command, run in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from tilewright.cli.app import build_app


def tilewright(*args: str) -> Result:
    """Exit code and output (stdout and stderr together) of ``tilewright args...``."""
    return CliRunner().invoke(build_app(), list(args))
