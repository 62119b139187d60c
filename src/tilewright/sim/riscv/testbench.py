"""A C program that carries its inputs and expected outputs, and ends with 0 only if what it computed is equal to them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_TYPES = {"i": "int{}_t", "u": "uint{}_t", "b": "uint8_t"}
_LINE = 24
#: What outputs hold before the run, in every byte: a program that forgets to write them is found out.
POISON = 0xA5


def self_checking(body: str, inputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], declarations: str = "") -> str:
    """The program: static arrays, ``declarations``, a ``main`` that runs ``body`` and compares.

    Arrays are contiguous and named as in the mappings; ``body`` is C that uses them. Those in ``expected`` are compared with their
    expected contents bit by bit; they start with the contents in ``inputs``, or poisoned when they are not there.
    """
    parts = ['#include "htif.h"', ""]
    for name, array in inputs.items():
        parts.append(_array(name, array, constant=name not in expected))
    for name, array in expected.items():
        if name not in inputs:
            parts.append(f"static _Alignas(64) {_element(array)} {name}[{max(array.size, 1)}];")
        parts.append(_array(f"{name}_expected", array, constant=True))
    poison = [f"memset({n}, {POISON:#x}, sizeof {n});" for n in expected if n not in inputs]
    compare = [f'wrong += htif_compare("{n}", {n}, {n}_expected, {a.size}, {a.itemsize});' for n, a in expected.items()]
    statements = [
        *poison,
        *body.splitlines(),
        '__asm__ volatile("fence" : : : "memory");',
        "size_t wrong = 0;",
        *compare,
        "return wrong != 0;",
    ]
    main = ["int main(void) {", *(f"    {s}" if s else "" for s in statements), "}"]
    return "\n".join([*parts, "", declarations, *main]) + "\n"


def _element(array: np.ndarray) -> str:
    if array.dtype.kind == "f" and array.itemsize > 2:
        return "float" if array.itemsize == 4 else "double"
    return _TYPES["u" if array.dtype.kind == "f" else array.dtype.kind].format(array.itemsize * 8)


def _array(name: str, array: np.ndarray, constant: bool) -> str:
    values = [_literal(v) for v in _plain(array)] or ["0"]
    rows = [", ".join(values[i : i + _LINE]) for i in range(0, len(values), _LINE)]
    return f"static {'const ' if constant else ''}_Alignas(64) {_element(array)} {name}[{len(values)}] = {{\n" + ",\n".join(rows) + "};"


def _plain(array: np.ndarray) -> list[int | float]:
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == np.float16:
        flat = flat.view(np.uint16)
    return [int(v) if array.dtype.kind == "b" else v for v in flat.tolist()]


def _literal(value: int | float) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return '__builtin_nan("")'
        return value.hex() if math.isfinite(value) else f"{'-' if value < 0 else ''}__builtin_inf()"
    if value >= 1 << 63:
        return f"{value}u"
    return str(value) if value > -(1 << 63) else "-9223372036854775807 - 1"
