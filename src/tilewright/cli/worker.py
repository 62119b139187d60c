"""``tilewright worker``: this computer measures for a tuner elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from tilewright.util.errors import RuntimeFailure


def worker(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The Dask scheduler, e.g. tcp://10.0.0.1:8786.")],
    machines: Annotated[
        list[str],
        typer.Option("--machine", help="What trials may be for: host, a machine of the library, or a Python file; repeat for more."),
    ] = ["host"],  # noqa: B006 (typer copies it)
    restart: Annotated[bool, typer.Option(help="Start the worker again when it is killed.")] = True,
) -> None:
    """Build and measure trials for `tilewright tune --cluster ADDRESS` on other computers.

    Runs until the scheduler ends, or Ctrl-C. Nothing else should run on the computer meanwhile; to keep several
    workers on one, give each its own processors with taskset. The same version of Tilewright has to be
    installed here and where the tuner runs.

    [bold]Examples[/]

      dask scheduler

      tilewright worker tcp://10.0.0.1:8786

      taskset -c 0-7 tilewright worker tcp://10.0.0.1:8786
    """
    if find_spec("distributed") is None:
        raise RuntimeFailure("Dask is not installed", hint="pip install 'tilewright[cluster]'")
    from tilewright.runtime.cluster_worker import serve

    serve(address, machines, restart=restart)
