"""Command programs with one thing wrong, and what a program computes on an array whose memories hold rubbish at first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tilewright.codegen.commands import Branch, Command, Fence, Item, Loop, Pointer, Program, Tile, stream
from tilewright.hw import Machine
from tilewright.ir.expr import Expr
from tilewright.ir.reference import reference
from tilewright.ir.simplify import simplify_expr
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini import Configuration, Functional, MainMemory

Items = tuple[Item, ...]


def blocks(items: Items, rebuild: Callable[[Items], Items] = lambda b: b) -> Iterator[tuple[Items, Callable[[Items], Items]]]:
    """Every block of a program, with the function that makes the whole program's body from another block in its place."""
    yield items, rebuild
    for n, i in enumerate(items):

        def at(new: Item, n: int = n) -> Items:
            return rebuild((*items[:n], new, *items[n + 1 :]))

        if isinstance(i, Loop):
            yield from blocks(i.body, lambda b, i=i, at=at: at(replace(i, body=b)))
        elif isinstance(i, Branch):
            yield from blocks(i.then, lambda b, i=i, at=at: at(replace(i, then=b)))
            yield from blocks(i.orelse, lambda b, i=i, at=at: at(replace(i, orelse=b)))


def mutants(program: Program) -> Iterator[tuple[str, Program]]:
    """Each command left out, issued twice or before the one before it; each of its numbers a little more or less."""
    for items, rebuild in blocks(program.body):
        for n, i in enumerate(items):
            if isinstance(i, Command | Fence):
                yield f"without {i}", replace(program, body=rebuild((*items[:n], *items[n + 1 :])))
            if not isinstance(i, Command):
                continue
            if n and isinstance(items[n - 1], Command | Fence):
                yield f"{i} too early", replace(program, body=rebuild((*items[: n - 1], i, items[n - 1], *items[n + 1 :])))
            for what, new in changed(i):
                yield f"{what} in {i}", replace(program, body=rebuild((*items[:n], new, *items[n + 1 :])))


def changed(c: Command) -> Iterator[tuple[str, Command]]:
    """The command with another operand."""
    for n, (name, o) in enumerate(c.operands):

        def put(new: object, n: int = n, name: str = name) -> Command:
            return replace(c, operands=(*c.operands[:n], (name, new), *c.operands[n + 1 :]))  # type: ignore[arg-type]

        for by in (-1, 1, 4):
            match o:
                case Pointer():
                    yield f"{name} {by:+}", put(replace(o, offset=more(o.offset, by)))
                case Tile():
                    for part in ("row", "rows", "cols"):
                        yield f"{name}.{part} {by:+}", put(replace(o, **{part: more(getattr(o, part), by)}))
                case Expr():
                    yield f"{name} {by:+}", put(more(o, by))


def more(e: Expr, by: int) -> Expr:
    return simplify_expr(e + by, {})


def computed(program: Program, machine: Machine, arrays: dict[str, np.ndarray], poison: int) -> dict[str, np.ndarray]:
    """``arrays`` after the program ran on a machine full of ``poison``, as are the program's own arrays."""
    memory = MainMemory(1 << 16)
    values = {b.name: arrays[b.name] if b.name in arrays else np.full(b.static_shape, poison, b.dtype.to_numpy()) for b in program.arrays}
    addresses = {n: memory.place(a, 64) for n, a in values.items()}
    views = {n: memory.array(addresses[n], a.shape, a.dtype) for n, a in values.items()}

    def host(kernel: Kernel, sizes: Sequence[int], args: Sequence[str]) -> None:
        values = dict(zip((v.name for v in kernel.sizes), sizes, strict=True))
        reference(kernel, {b.name: views[a] for b, a in zip(kernel.args, args, strict=True)}, values)

    model = Functional(Configuration.of(machine), memory)
    model.spad[:], model.acc[:] = poison, poison * 1_000_003
    model.run(w for w in stream(program, machine, addresses, host) if w is not None)
    return {n: views[n].copy() for n in arrays}
