"""The ``tilewright`` command."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
    from tilewright.cli.app import build_app

    build_app()(prog_name="tilewright")
