"""``tilewright cache``: the build cache on disk."""

from __future__ import annotations

import typer

from tilewright.cli.console import bytes_text

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def cache() -> None:
    """Show or clear the build cache.

    Compiled kernels are kept under TILEWRIGHT_CACHE (default: ~/.cache/tilewright), at most
    TILEWRIGHT_CACHE_LIMIT MiB of them. Removing them costs only the time to compile again.

    [bold]Examples[/]

      tilewright cache info

      tilewright cache clear
    """


@app.command()
def info() -> None:
    """Where the cache lies, how much it holds and may hold."""
    from tilewright.runtime.cache import build_cache

    i = build_cache().info()
    typer.echo(f"{i.root}\n{i.entries} entries, {bytes_text(i.bytes)} of at most {bytes_text(i.limit)}")


@app.command()
def clear() -> None:
    """Remove every entry."""
    from tilewright.runtime.cache import build_cache

    store = build_cache()
    typer.echo(f"{store.root}: freed {bytes_text(store.clear())}")
