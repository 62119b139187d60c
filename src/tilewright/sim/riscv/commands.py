"""A stream of Gemmini commands as C: one call for each, of functions derived from the commands' own encodings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tilewright.codegen.c.custom import ISSUE, parameter, wrapper
from tilewright.sim.gemmini import isa, words
from tilewright.util.errors import CodegenError


@dataclass(frozen=True, slots=True)
class Region:
    """``size`` bytes from ``address`` on, called by the name of an array of the C program."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Stream:
    """``declarations``: the functions of the commands in use. ``body``: the calls, one a line."""

    declarations: str
    body: str


def stream_text(program: Iterable[isa.Command], arrays: Mapping[str, Region]) -> Stream:
    """``program`` as C. Main memory addresses become ``array + offset``; 0 (nothing) stays 0.

    CodegenError for an address that is in none of ``arrays``.
    """
    used: dict[str, words.Encoding] = {}
    lines = []
    for command in program:
        if isinstance(command, isa.Fence):
            lines.append('__asm__ volatile("fence" : : : "memory");')
            continue
        form = words.encoding_of(command)
        used.setdefault(_name(form), form)
        values = words.quantities(command)
        texts = [
            _address(values[q], arrays, command) if q in command.addresses else f"{values[q]:#x}" if values[q] > 0xFFFF else str(values[q])
            for q in form.word.quantities
        ]
        lines.append(f"{_name(form)}({', '.join(texts)});")
    functions = (wrapper(name, form.word, _comment(form)) for name, form in used.items())
    return Stream("\n\n".join([ISSUE, *functions]), "\n".join(lines))


def _name(form: words.Encoding) -> str:
    parts = re.findall("[A-Z]+[a-z]*", form.command.__name__)
    return "_".join([*(p.lower() for p in parts), *(str(int(v)) for _, v in form.fixed)])


def _comment(form: words.Encoding) -> str:
    return ", ".join([f"{parameter(n)} = {int(v)}" for n, v in form.fixed])


def _address(value: int, arrays: Mapping[str, Region], command: isa.Command) -> str:
    if value == 0:
        return "0"
    for name, region in arrays.items():
        if region.address <= value < region.address + region.size:
            offset = value - region.address
            return f"(uint64_t){name}" + (f" + {offset}" if offset else "")
    raise CodegenError(f"{command}: address {value:#x} lies in no array", hint=f"arrays: {', '.join(arrays) or 'none'}")
