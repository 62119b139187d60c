"""``tilewright machine``: declared machines as text."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def machine() -> None:
    """Show declared machines: this computer, the library's, your own.

    [bold]Examples[/]

      tilewright machine list

      tilewright machine show

      tilewright machine show cuda.sm80

      tilewright machine show ./my_machine.py
    """


@app.command("list")
def list_command() -> None:
    """The machines of the library: memories, compute instructions, peak rate."""
    from tilewright.cli.console import count_text, stdout, table
    from tilewright.hw import list_machines, load_machine

    out = table("machine", "memories", "units", "instructions", "peak ops/s", numbers=("instructions", "peak ops/s"))
    for name in list_machines():
        m = load_machine(name)
        units = " x ".join(f"{u.count} {u.name}" for u in m.units)
        out.add_row(name, " ".join(x.name for x in m.memories), units, str(len(m.instructions)), count_text(m.peak_ops()))
    stdout().print(out)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="[NAME|FILE.py]", help="A machine of the library, or a file that declares one.")] = "host",
) -> None:
    """A machine's memories, units, instructions with their axes and conditions, transfers and states."""
    from tilewright.hw import load_machine

    typer.echo(load_machine(name).describe())
