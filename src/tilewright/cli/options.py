"""Options that several commands share, and the NAME=VALUE forms they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

if TYPE_CHECKING:
    import numpy as np

    from tilewright.graph.fusion import Fusion
    from tilewright.graph.layout import Layouts
    from tilewright.hw import Machine

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.", show_default=False)]
Dims = Annotated[
    list[str], typer.Option("--dim", metavar="NAME=N", help="Bind a dynamic dimension, e.g. batch=1; repeat for more.", show_default=False)
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to use (default: TILEWRIGHT_THREADS or all processors).", show_default=False)
]
FusionName = Annotated[
    str, typer.Option("--fusion", help="How operations become kernels: none, greedy, dp (least estimated cost), measured (least time).")
]
LayoutsName = Annotated[
    str,
    typer.Option("--layouts", help="How values between kernels lie: plain, channels-last, blocked, best (least estimated cost; slow)."),
]
RecordsFile = Annotated[
    Path | None,
    typer.Option("--records", metavar="FILE", help="Tuning records (default: TILEWRIGHT_RECORDS, or the user's own).", show_default=False),
]
UseRecords = Annotated[
    Path | None,
    typer.Option("--records", metavar="FILE", help="Use the best schedules that tilewright tune recorded.", show_default=False),
]
MachineName = Annotated[
    str,
    typer.Option(
        "--machine",
        help="host, a machine of the library (tilewright machine list; with parameters: gemmini:dim=8,inputs=bf16), or a Python file.",
    ),
]
Shape = Annotated[
    str,
    typer.Option(
        "--shape", metavar="NAME=N,...", help="Extents of an operator by iteration name, e.g. i=512,j=512,k=512.", show_default=False
    ),
]


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``["a=x", "b=y"]`` as a dict; a usage error names the text that is not of this form."""
    out: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        if name in out:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        out[name] = value
    return out


def integers(texts: Sequence[str], option: str) -> dict[str, int]:
    """``["batch=1"]`` as a dict of integers; a usage error names the text that is not of this form."""
    out = {}
    for name, value in pairs(texts, option).items():
        if not value.isdigit():
            raise typer.BadParameter(f"{name}={value!r} is not an integer >= 0", param_hint=option)
        out[name] = int(value)
    return out


def short_names(networks: Sequence[str]) -> list[str]:
    """What networks are called: their file without folder and ending, or all that was given where that leaves two alike."""
    short = []
    for text in networks:
        path, _, member = text.partition(".json:")
        short.append(f"{Path(path).name}_{member}" if member else Path(text).stem)
    return short if len(set(short)) == len(short) else list(networks)


def arrays(texts: Sequence[str], option: str) -> dict[str, np.ndarray]:
    """``["x=x.npy"]`` as arrays by name; RuntimeFailure names the file that cannot be read."""
    import numpy as np

    from tilewright.util.errors import RuntimeFailure

    out = {}
    for name, path in pairs(texts, option).items():
        try:
            out[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RuntimeFailure(f"input {name!r}: cannot read {path}: {error}", hint="save it with numpy.save") from error
        if not isinstance(out[name], np.ndarray):
            raise RuntimeFailure(f"input {name!r}: {path} holds several arrays", hint="save one with numpy.save")
    return out


def fusion_named(name: str) -> Fusion:
    """The way of fusion an option names; a usage error lists those there are."""
    from tilewright.graph.fusion import Fusion

    for known in get_args(Fusion):
        if name == known:
            return known
    raise typer.BadParameter(f"{name!r} is none of {', '.join(get_args(Fusion))}", param_hint="--fusion")


def layouts_named(name: str) -> Layouts:
    """The layouts an option names; a usage error lists those there are."""
    from tilewright.graph.layout import Layouts

    for known in get_args(Layouts):
        if name == known:
            return known
    raise typer.BadParameter(f"{name!r} is none of {', '.join(get_args(Layouts))}", param_hint="--layouts")


def machine_named(name: str) -> Machine:
    """The machine an option names."""
    from tilewright.hw import load_machine

    return load_machine(name)
