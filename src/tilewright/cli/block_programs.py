"""Block programs on the command line: the arguments of a launch as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from tilewright.cli.options import pairs
from tilewright.ir.types import parse_dtype
from tilewright.runtime.configurations import Autotuner
from tilewright.runtime.launch import JitFunction
from tilewright.util.errors import IRTypeError

_ARRAY = re.compile(r"(.+?)\[([\d,\s]*)\]$")


def launch_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """``["x=f32[64,64]", "n=64", "BM=16"]`` as arrays of zeros, numbers and words; a usage error names what is none of these."""
    import numpy as np

    out: dict[str, Any] = {}
    for name, text in pairs(texts, "--arg").items():
        if array := _ARRAY.match(text):
            try:
                dtype = parse_dtype(array[1]).to_numpy()
            except IRTypeError as error:
                raise typer.BadParameter(f"{name}={text!r}: {error.message}", param_hint="--arg") from error
            out[name] = np.zeros(tuple(int(n) for n in array[2].split(",") if n.strip()), dtype)
        else:
            out[name] = _number(text)
    return out


def _number(text: str) -> int | float | bool | str:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def grid_of(text: str) -> tuple[int, ...]:
    """``"4,2"`` as a grid; a usage error when it is none."""
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if not 1 <= len(parts) <= 3 or not all(p.isdigit() and int(p) for p in parts):
        raise typer.BadParameter(f"{text!r} is not one to three positive integers", param_hint="--grid")
    return tuple(map(int, parts))


def plain_function(program: JitFunction | Autotuner) -> JitFunction:
    """The block program itself, without its tuner (the options say which configuration is meant)."""
    return program.function if isinstance(program, Autotuner) else program
