"""Runs a command program: the words its host issues, one after the other.

The program becomes the text of a Python generator, so that a stream of a million words takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Let, Loop, Pointer, Program, Word, given, word_of, words
from tilewright.hw import Bits, Machine
from tilewright.ir.expr import Const
from tilewright.ir.printer import expr_text
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import CodegenError, ExecutionError

#: What the host runs in between: a kernel, its sizes, and the names of the program's arrays it works on.
HostCall = Callable[[Kernel, Sequence[int], Sequence[str]], None]


def stream(
    program: Program, machine: Machine, addresses: Mapping[str, int], host: HostCall | None = None
) -> Iterator[tuple[int, int, int] | None]:
    """(funct7, rs1, rs2) of every word, and None for a fence.

    ``addresses`` say where each argument and each array of the program's own is in main memory. ``host`` runs host kernels when
    their turn comes (None: they are skipped, as when only time matters). ExecutionError: a value does not fit its bit field, an
    address is missing, or an array of the program's own shares bytes with another.
    """
    missing = [b.name for b in program.arrays if b.name not in addresses]
    if missing:
        raise ExecutionError(f"program {program.name}: no address for {', '.join(missing)}", hint="give one for each array")
    _apart(program, addresses)
    writer = _Writer(words(machine), addresses)
    text = "\n".join(["def run():", "    yield from ()", *writer.block(program.body, "    ")])
    scope: dict[str, Any] = {
        "host": host,
        "kernels": writer.kernels,
        "where": lambda c, a, b: a if c else b,
        "refuse": _refuse,
        "index": int,
    }
    exec(compile(text, f"<{program.name}>", "exec"), scope)
    result: Iterator[tuple[int, int, int] | None] = scope["run"]()
    return result


def _apart(program: Program, addresses: Mapping[str, int]) -> None:
    """Arguments may share memory, as the caller knows what they hold; the program's own arrays share none."""
    for own in program.temps:
        start, end = addresses[own.name], addresses[own.name] + own.nbytes
        for b in program.arrays:
            if b is not own and addresses[b.name] < end and start < addresses[b.name] + b.nbytes:
                raise ExecutionError(
                    f"program {program.name}: {own.name}, bytes {start:#x} to {end:#x}, overlaps {b.name} at {addresses[b.name]:#x}",
                    hint="place the arrays one after the other",
                )


def _refuse(word: str, field: str, value: int, width: int) -> NoReturn:
    raise ExecutionError(f"{word}: {field} = {value} does not fit {width} bits", hint="the program or its declaration is wrong")


class _Writer:
    def __init__(self, known: Mapping[str, Word], addresses: Mapping[str, int]):
        self.words, self.addresses = known, addresses
        self.kernels: list[Kernel] = []

    def block(self, items: tuple[Item, ...], indent: str) -> list[str]:
        return [line for i in items for line in self.item(i, indent)] or [f"{indent}pass"]

    def item(self, i: Item, indent: str) -> list[str]:
        inside = indent + "    "
        match i:
            case Command():
                return [indent + line for line in self.command(i)]
            case Loop():
                return [f"{indent}for {i.var} in range({expr_text(i.lo)}, {expr_text(i.hi)}, {i.step}):", *self.block(i.body, inside)]
            case Branch():
                then = [f"{indent}if {expr_text(i.cond)}:", *self.block(i.then, inside)]
                return [*then, f"{indent}else:", *self.block(i.orelse, inside)] if i.orelse else then
            case Let():
                return [f"{indent}{i.var} = {expr_text(i.value)}"]
            case Fence():
                return [f"{indent}yield None"]
            case Host():
                self.kernels.append(i.kernel)
                sizes = ", ".join(map(expr_text, i.sizes))
                call = f"host(kernels[{len(self.kernels) - 1}], [{sizes}], {list(i.args)!r})"
                return [f"{indent}if host is not None:", f"{inside}{call}"]
        raise CodegenError(f"{type(i).__name__} is no item of a command program")

    def command(self, c: Command) -> list[str]:
        word = word_of(self.words, c.word)
        values = given(c, self.address, expr_text)
        lines: list[str] = []
        packed = [self.register(c.word, bits, values, lines) for bits in (word.encoding.rs1, word.encoding.rs2)]
        return [*lines, f"yield {word.encoding.funct7}, {packed[0]}, {packed[1]}"]

    def address(self, p: Pointer) -> str:
        if p.base not in self.addresses:
            raise ExecutionError(f"no address for {p.base}", hint="give one for each array")
        known = str(self.addresses[p.base] + int(p.offset.value)) if isinstance(p.offset, Const) else None
        return known or f"{self.addresses[p.base]} + {expr_text(p.offset)}"

    def register(self, word: str, bits: tuple[Bits, ...], values: Mapping[str, str], lines: list[str]) -> str:
        """The text of a register's contents; ``lines`` get what must be computed and checked before."""
        constant, parts = 0, []
        for b in bits:
            if isinstance(b.value, str) and b.value not in values:
                raise CodegenError(f"{word} needs {b.value!r}", hint=f"given: {', '.join(values) or 'nothing'}")
            text = str(b.value) if isinstance(b.value, int) else values[b.value]
            if text.isdigit():
                if int(text) >> b.width:
                    _refuse(word, str(b.value), int(text), b.width)
                constant |= int(text) << b.lo
                continue
            name = f"v{len(lines)}"
            lines.append(f"{name} = {text}")
            lines.append(f"if not 0 <= {name} < {1 << b.width}: refuse({word!r}, {b.value!r}, {name}, {b.width})")
            parts.append(f"{name} << {b.lo}" if b.lo else name)
        return " | ".join([*parts, str(constant)] if constant or not parts else parts)
