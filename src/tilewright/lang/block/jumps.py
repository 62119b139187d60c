"""``break`` and ``continue`` as conditions: what follows them in a pass, and all later passes, run only while the loop is live."""

from __future__ import annotations

import ast


def live(loop: ast.For | ast.While) -> str:
    """The name of the condition under which ``loop`` goes on."""
    return f"live.{loop.lineno}"


def jumps(body: list[ast.stmt]) -> bool:
    """Whether a pass through ``body`` may end early: ``break`` or ``continue`` of this loop, under conditions only."""
    return any(isinstance(s, (ast.Break, ast.Continue)) or (isinstance(s, ast.If) and (jumps(s.body) or jumps(s.orelse))) for s in body)


def without_jumps(loop: ast.For | ast.While) -> list[ast.stmt]:
    """The body of ``loop`` as one statement under its condition, which is to be true before the loop."""
    body = _rest(loop.body, live(loop))
    return [_placed(ast.If(ast.Name(live(loop), ast.Load()), body or [ast.Pass()], []), loop)]


def _rest(body: list[ast.stmt], name: str) -> list[ast.stmt]:
    """``body`` where what follows a condition that may jump stands in the branches that do not."""
    out: list[ast.stmt] = []
    for n, s in enumerate(body):
        match s:
            case ast.Continue():
                return out or [_placed(ast.Pass(), s)]
            case ast.Break():
                return [*out, _placed(ast.Assign([ast.Name(name, ast.Store())], ast.Constant(False)), s)]
            case ast.If() if jumps(s.body) or jumps(s.orelse):
                after = body[n + 1 :]
                then, other = _rest([*s.body, *after], name), _rest([*s.orelse, *after], name)
                return [*out, _placed(ast.If(s.test, then or [ast.Pass()], other), s)]
        out.append(s)
    return out


def _placed(new: ast.stmt, old: ast.AST) -> ast.stmt:
    """``new`` at the place of ``old`` in the source, for errors."""
    for node in ast.walk(new):
        if not hasattr(node, "lineno"):
            ast.copy_location(node, old)
    return new
