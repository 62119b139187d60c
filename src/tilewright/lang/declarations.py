"""Declarations: type annotations, ``alloc`` and the ``@kernel(...)`` options."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from tilewright.ir.buffer import MAIN_MEMORY, Buffer, buffer
from tilewright.ir.expr import Expr, idx
from tilewright.ir.types import NAMED, ArrayType, DType
from tilewright.lang.expressions import ExpressionReader, index_nodes

_TYPE_HINT = 'write f32, f32[M, N], f32[M, N] @ "reg" or buffer(f32[M, N], "dram", layout="1/16 0 1")'


@dataclass(frozen=True, slots=True)
class Declared:
    """What an annotation says: element type, extents and place."""

    dtype: DType
    shape: tuple[Expr, ...] = ()
    memory: str = MAIN_MEMORY
    layout: str | None = None

    def buffer(self, name: str) -> Buffer:
        """The checked buffer of that name."""
        return buffer(name, self.dtype, self.shape, self.memory, self.layout)


class DeclarationReader:
    """Reads annotations in the scope of an expression reader."""

    def __init__(self, expressions: ExpressionReader) -> None:
        self.expressions = expressions
        self.source = expressions.source

    def annotation(self, node: ast.expr) -> Declared:
        """``f32``, ``f32[M, N]``, ``... @ memory``, ``buffer(...)``, or any of these quoted."""
        with self.source.blame(node):
            match node:
                case ast.Constant(value=str() as text):
                    return self.quoted(node, text)
                case ast.BinOp(op=ast.MatMult()):
                    of = self.annotation(node.left)
                    return Declared(of.dtype, of.shape, self.memory(node.right), of.layout)
                case ast.Call(func=ast.Name(id="buffer")):
                    return self.placed(node)
                case ast.Subscript():
                    return Declared(self.expressions.dtype(node.value), tuple(self.expressions.index(d) for d in index_nodes(node)))
            named = isinstance(node, ast.Name) and node.id in NAMED
            v = self.expressions.dtype(node) if named else self.expressions.value(node)
            if isinstance(v, ArrayType):
                return Declared(v.dtype, tuple(idx(s) for s in v.shape), v.memory or MAIN_MEMORY)
            if isinstance(v, DType):
                return Declared(v)
            raise self.source.error(node, f"`{ast.unparse(node)}` is not a type", hint=_TYPE_HINT)

    def quoted(self, node: ast.expr, text: str) -> Declared:
        try:
            inner = ast.parse(text, mode="eval").body
        except SyntaxError:
            raise self.source.error(node, f"{text!r} is not a type", hint=_TYPE_HINT) from None
        for n in ast.walk(inner):
            ast.copy_location(n, node)
        return self.annotation(inner)

    def placed(self, node: ast.Call) -> Declared:
        """``buffer(type, memory, layout=...)`` and ``alloc(type, memory, layout=...)``."""
        if not 1 <= len(node.args) <= 2 or any(k.arg not in ("memory", "layout") for k in node.keywords):
            raise self.source.error(
                node, f"`{ast.unparse(node)}` is not a declaration", hint='write alloc(f32[4, 16], "reg", layout="1/16 0 1")'
            )
        keywords = {k.arg: k.value for k in node.keywords}
        of = self.annotation(node.args[0])
        place = node.args[1] if len(node.args) == 2 else keywords.get("memory")
        memory = self.memory(place) if place is not None else of.memory
        layout = self.text(keywords["layout"]) if "layout" in keywords else of.layout
        return Declared(of.dtype, of.shape, memory, layout)

    def memory(self, node: ast.expr) -> str:
        """A memory: its name, or a closed-over object that has a ``name``."""
        v: Any = node.value if isinstance(node, ast.Constant) else self.expressions.value(node)
        name = v if isinstance(v, str) else getattr(v, "name", None)
        if not isinstance(name, str):
            raise self.source.error(node, f"`{ast.unparse(node)}` is not a memory", hint='write its name: f32[16] @ "reg"')
        return name

    def text(self, node: ast.expr) -> str:
        """A string, written out or closed over."""
        v = node.value if isinstance(node, ast.Constant) else str(self.expressions.value(node))
        if not isinstance(v, str):
            raise self.source.error(node, f"`{ast.unparse(node)}` is not a string")
        return v
