"""The text of command programs, which :func:`~tilewright.codegen.commands.reader.parse_program` reads back."""

from __future__ import annotations

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Let, Loop, Operand, Pointer, Program, Tile, walk
from tilewright.ir.expr import Const
from tilewright.ir.printer import expr_text, kernel_text, parameter_text, stmt_text
from tilewright.ir.stmt import Alloc
from tilewright.util.errors import CodegenError

_INDENT = "    "


def program_text(p: Program) -> str:
    """The kernels that the host runs, then the program."""
    kernels: dict[str, str] = {}
    for i in walk(p.body):
        if isinstance(i, Host):
            text = kernel_text(i.kernel)
            if kernels.setdefault(i.kernel.name, text) != text:
                raise CodegenError(f"program {p.name} runs two host kernels called {i.kernel.name}", hint="rename one")
    args = ", ".join(f"{b.name}: {parameter_text(b)}" for b in p.args)
    body = [*(f"{_INDENT}{stmt_text(Alloc(b))}" for b in p.temps), *_lines(p.body, _INDENT)] or [f"{_INDENT}pass"]
    return "\n\n\n".join([*kernels.values(), "\n".join([f'@commands("{p.machine}")', f"def {p.name}({args}):", *body])])


def item_text(i: Item) -> str:
    """An item and what is inside it."""
    return "\n".join(_lines((i,), ""))


def operand_text(o: Operand) -> str:
    """``a + 64 * i`` in main memory, ``spad[row, rows, cols]`` in a memory of lines, or a number."""
    match o:
        case Pointer(base, offset):
            if isinstance(offset, Const):
                return f"{base} + {offset.value}" if offset.value else base
            return f"{base} + ({expr_text(offset)})"
        case Tile():
            return f"{o.memory}[{expr_text(o.row)}, {expr_text(o.rows)}, {expr_text(o.cols)}]"
    return expr_text(o)


def _lines(items: tuple[Item, ...], indent: str) -> list[str]:
    return [line for i in items for line in _item_lines(i, indent)]


def _item_lines(i: Item, indent: str) -> list[str]:
    inside = indent + _INDENT
    match i:
        case Command():
            return [f"{indent}{i.word}({', '.join(f'{n}={operand_text(o)}' for n, o in i.operands)})"]
        case Loop():
            step = f", {i.step}" if i.step != 1 else ""
            return [f"{indent}for {i.var} in range({expr_text(i.lo)}, {expr_text(i.hi)}{step}):", *_lines(i.body, inside)]
        case Branch():
            lines = [f"{indent}if {expr_text(i.cond)}:", *_lines(i.then, inside)]
            return [*lines, f"{indent}else:", *_lines(i.orelse, inside)] if i.orelse else lines
        case Let():
            return [f"{indent}{i.var} = {expr_text(i.value)}"]
        case Fence():
            return [f"{indent}fence()"]
        case Host():
            return [f"{indent}{i.kernel.name}({', '.join([*map(expr_text, i.sizes), *i.args])})"]
    raise CodegenError(f"{type(i).__name__} is no item of a command program")
