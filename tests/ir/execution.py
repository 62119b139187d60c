"""Execution by enumeration: every statement instance of an affine program in order, with the elements it touches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir.expr import Compare, Expr, Logical, Not
from tilewright.ir.stmt import Alloc, Block, For, If, Kernel, Stmt, Store

#: (buffer, the iteration that allocated it, element)
Element = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Instance:
    """One execution of a store: its loop values (outer first) and the elements it reads, writes or updates with an operator."""

    node: Store
    iteration: dict[str, int]
    touched: frozenset[tuple[Element, str]]


def instances(kernel: Kernel, sizes: dict[str, int] | None = None) -> list[Instance]:
    """All store instances of ``kernel`` in execution order (conditions and bounds must not read memory)."""
    return list(_run(kernel.body, dict(sizes or {}), {}, {}))


def _run(s: Stmt, env: dict[str, int], loops: dict[str, int], owners: dict[str, tuple[int, ...]]) -> Iterator[Instance]:
    match s:
        case Block():
            for t in s.stmts:
                if isinstance(t, Alloc):
                    owners = {**owners, t.buffer.name: tuple(loops.values())}
                else:
                    yield from _run(t, env, loops, owners)
        case For():
            for value in range(ex.evaluate(s.lo, env), ex.evaluate(s.hi, env), s.step):
                yield from _run(s.body, {**env, s.name: value}, {**loops, s.name: value}, owners)
        case If():
            branch = s.then if truth(s.cond, env) else s.orelse
            if branch:
                yield from _run(branch, env, loops, owners)
        case Store():

            def element(name: str, indices: tuple[Expr, ...]) -> Element:
                return name, owners.get(name, ()), tuple(ex.evaluate(i, env) for i in indices)

            touched = {(element(ld.buffer.name, ld.indices), "read") for ld in ex.loads(s.value)}
            touched.add((element(s.buffer.name, s.indices), s.op or "write"))
            yield Instance(s, loops, frozenset(touched))


def truth(e: Expr, env: dict[str, int]) -> bool:
    """Value of a condition on loop variables."""
    match e:
        case Logical():
            return (all if e.op == "and" else any)(truth(x, env) for x in (e.a, e.b))
        case Not():
            return not truth(e.a, env)
        case Compare():
            return bool(ex.evaluate(e, env))
    raise AssertionError(f"{e} is no affine condition")


def conflict(a: Instance, b: Instance, commuting: bool) -> bool:
    """Whether the instances touch one element and one of them changes it; updates by one operator conflict unless ``commuting``."""
    for element, x in a.touched:
        for other, y in b.touched:
            if element == other and not (x == y == "read") and not (commuting and x == y != "write"):
                return True
    return False
