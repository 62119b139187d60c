"""Command programs: what the host of an accelerator issues, one item for each instruction word, inside ordinary loops.

Expressions are index expressions over the loops around them. A command names a declared word and gives its operands; what the bits of
the word are follows from the machine's declaration alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tilewright.hw import Instruction, LoopForm, Machine, RoCC, Steps
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import CodegenError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place in main memory: ``offset`` bytes after the start of the array ``base``."""

    base: str
    offset: Expr


@dataclass(frozen=True, slots=True)
class Tile:
    """A matrix in a memory of lines: ``rows`` lines from line ``row`` on, ``cols`` elements of each."""

    memory: str
    row: Expr
    rows: Expr
    cols: Expr


Operand = Pointer | Tile | Expr


class Item:
    """Base of what a program consists of; ``str`` is its text."""

    __slots__ = ()

    def __str__(self) -> str:
        from tilewright.codegen.commands.printer import item_text

        return item_text(self)


@dataclass(frozen=True, slots=True, repr=False)
class Command(Item):
    """One instruction word: ``word`` as :func:`words` names it, and the operands its bit fields are made of."""

    word: str
    operands: tuple[tuple[str, Operand], ...]


@dataclass(frozen=True, slots=True, repr=False)
class Loop(Item):
    """``for var in range(lo, hi, step)``, run by the host."""

    var: str
    lo: Expr
    hi: Expr
    body: tuple[Item, ...]
    step: int = 1


@dataclass(frozen=True, slots=True, repr=False)
class Let(Item):
    """``var = value``, known to the items that follow it."""

    var: str
    value: Expr


@dataclass(frozen=True, slots=True, repr=False)
class Branch(Item):
    """``if cond: then else: orelse``, decided by the host."""

    cond: Expr
    then: tuple[Item, ...]
    orelse: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Fence(Item):
    """The host waits until everything issued has ended."""


@dataclass(frozen=True, slots=True, repr=False)
class Host(Item):
    """The host runs ``kernel`` with these ``sizes`` on whole arrays of the program."""

    kernel: Kernel
    sizes: tuple[Expr, ...]
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Program:
    """``args`` are arrays in main memory, those of the kernel it was made from; ``machine`` is the name of its machine.

    ``temps`` are arrays in main memory that belong to the program: their contents are undefined before it writes them, and of no
    use after it. Arrays are row-major, or as their layouts say.
    """

    name: str
    machine: str
    args: tuple[Buffer, ...]
    body: tuple[Item, ...]
    temps: tuple[Buffer, ...] = ()

    @property
    def arrays(self) -> tuple[Buffer, ...]:
        """Everything in main memory that needs an address."""
        return (*self.args, *self.temps)

    def __str__(self) -> str:
        from tilewright.codegen.commands.printer import program_text

        return program_text(self)


@dataclass(frozen=True, slots=True)
class Word:
    """A declared word, and the instruction or the loop ``form`` (as an instruction) that it is a part of."""

    instruction: Instruction
    encoding: RoCC
    form: LoopForm | None = None


def has_words(machine: Machine) -> bool:
    """Whether ``machine`` is an accelerator whose host issues instruction words."""
    return any(isinstance(i.emit, RoCC | Steps) for i in machine.all_instructions)


def words(machine: Machine) -> dict[str, Word]:
    """The words of ``machine`` by name: that of the instruction, or ``instruction.step`` (``form.word``) where there are several."""
    out: dict[str, Word] = {}
    for i in machine.all_instructions:
        match i.emit:
            case RoCC():
                out[i.name] = Word(i, i.emit)
            case Steps():
                out |= {f"{i.name}.{step.name}": Word(i, step) for step in (*i.emit.steps, *i.emit.again)}
    for f in machine.forms:
        out |= {f"{f.name}.{word.name}": Word(f.instruction, word, f) for word in f.words}
    if not out:
        raise CodegenError(f"machine {machine.name} declares no instruction words", hint="give its instructions emit=RoCC(...)")
    return out


def word_of(known: Mapping[str, Word], name: str) -> Word:
    """One of the :func:`words`; CodegenError when the machine has none of this name."""
    if name not in known:
        raise CodegenError(f"the machine has no word {name!r}", hint=f"it has: {', '.join(known)}")
    return known[name]


def given(c: Command, address: Callable[[Pointer], T], value: Callable[[Expr], T]) -> dict[str, T]:
    """The quantities that the operands of a command give, by name: ``a.address``, and of a tile ``a.rows`` and ``a.cols``, too.

    A number is a quantity itself; where it stands in place of an operand it is the address.
    """
    out: dict[str, T] = {}
    for name, o in c.operands:
        match o:
            case Pointer():
                out[f"{name}.address"] = address(o)
            case Tile():
                out |= {f"{name}.{q}": value(e) for q, e in (("address", o.row), ("rows", o.rows), ("cols", o.cols))}
            case _:
                out |= dict.fromkeys((name, f"{name}.address"), value(o))
    return out


def wanted(c: Command, word: Word, values: Mapping[str, T]) -> list[T]:
    """Of the ``values`` that :func:`given` found those that ``word`` is packed from, in its order. CodegenError: one is missing."""
    if missing := [q for q in word.encoding.quantities if q not in values]:
        raise CodegenError(f"{c.word} needs {', '.join(missing)}", hint=f"given: {', '.join(values) or 'nothing'}")
    return [values[q] for q in word.encoding.quantities]


def walk(items: tuple[Item, ...]) -> Iterator[Item]:
    """All items in text order, parents first."""
    for i in items:
        yield i
        match i:
            case Loop():
                yield from walk(i.body)
            case Branch():
                yield from walk(i.then)
                yield from walk(i.orelse)
