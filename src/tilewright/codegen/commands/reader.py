"""Reads the text of command programs: ``parse_program(str(p)) == p``."""

from __future__ import annotations

import ast

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Let, Loop, Operand, Pointer, Program, Tile
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Kernel, allocated
from tilewright.lang import parse
from tilewright.lang.expressions import ExpressionReader
from tilewright.lang.scope import Scope
from tilewright.lang.source import Source
from tilewright.util.errors import LanguageError, TilewrightError


def parse_program(text: str) -> Program:
    """The program that ``text`` defines last, after the kernels its host runs. LanguageError names the line."""
    source = Source("<text>", tuple(text.splitlines()))
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise LanguageError(f"not Python syntax: {error.msg} in line {error.lineno}") from None
    functions = [n for n in module.body if isinstance(n, ast.FunctionDef)]
    if not functions or len(functions) != len(module.body):
        raise LanguageError("a command program is a sequence of def, the last one decorated with @commands(machine)")
    kernels = {n.name: parse(ast.unparse(n)) for n in functions[:-1]}
    return _Reader(source, kernels).program(functions[-1])


class _Reader:
    def __init__(self, source: Source, kernels: dict[str, Kernel]):
        self.source, self.kernels = source, kernels
        self.scope = Scope({})
        self.expressions = ExpressionReader(source, self.scope)
        self.arrays: dict[str, Buffer] = {}

    def program(self, node: ast.FunctionDef) -> Program:
        match node.decorator_list:
            case [ast.Call(func=ast.Name(id="commands"), args=[ast.Constant(value=str(machine))], keywords=[])]:
                pass
            case _:
                raise self.source.error(node, f"{node.name} needs the one decorator @commands", hint='@commands("gemmini")')
        own = [n for n in node.body if _declares(n)]
        signature = ast.FunctionDef(node.name, node.args, [*own, ast.Pass()], [ast.Name("kernel", ast.Load())])
        declared = parse(ast.unparse(ast.fix_missing_locations(signature)))
        temps = tuple(allocated(declared))
        self.arrays = {b.name: b for b in (*declared.args, *temps)}
        return Program(node.name, machine, declared.args, self.block([n for n in node.body if n not in own]), temps)

    def block(self, nodes: list[ast.stmt]) -> tuple[Item, ...]:
        return tuple(self.item(n) for n in nodes if not isinstance(n, ast.Pass))

    def item(self, node: ast.stmt) -> Item:
        match node:
            case ast.For(target=ast.Name(id=var), iter=ast.Call(func=ast.Name(id="range"), args=[lo, hi, *step]), orelse=[]):
                ends = self.expressions.index(lo), self.expressions.index(hi)
                by = int(self.expressions.constant(step[0])) if step else 1
                with self.scope.level():
                    self.scope.bind(var, Var(var))
                    return Loop(var, *ends, self.block(node.body), by)
            case ast.Assign(targets=[ast.Name(id=var)], value=value):
                number = self.expressions.index(value)
                self.scope.bind(var, Var(var))
                return Let(var, number)
            case ast.If():
                cond = self.expressions.condition(node.test)
                with self.scope.level():
                    then = self.block(node.body)
                with self.scope.level():
                    return Branch(cond, then, self.block(node.orelse))
            case ast.Expr(value=ast.Call() as call):
                return self.call(call)
        raise self.source.error(node, f"`{ast.unparse(node).splitlines()[0]}` is no item of a command program", hint="for, if or a command")

    def call(self, node: ast.Call) -> Item:
        name = ast.unparse(node.func)
        if name == "fence":
            return Fence()
        if (kernel := self.kernels.get(name)) is not None:
            count = len(kernel.sizes)
            return Host(kernel, tuple(map(self.expressions.index, node.args[:count])), tuple(map(ast.unparse, node.args[count:])))
        if node.args or any(k.arg is None for k in node.keywords):
            raise self.source.error(node, f"{name}: operands of a command are named", hint="mvin(dst=spad[0, 16, 16], src=a + 64)")
        return Command(name, tuple((str(k.arg), self.operand(k.value)) for k in node.keywords))

    def operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.Name(id=base) if base in self.arrays:
                return Pointer(base, self.index(ast.Constant(0)))
            case ast.BinOp(left=ast.Name(id=base), op=ast.Add(), right=offset) if base in self.arrays:
                return Pointer(base, self.index(offset))
            case ast.Subscript(value=ast.Name(id=memory), slice=ast.Tuple(elts=[row, rows, cols])):
                return Tile(memory, self.index(row), self.index(rows), self.index(cols))
        return self.index(node)

    def index(self, node: ast.expr) -> Expr:
        try:
            return self.expressions.index(node)
        except TilewrightError as error:
            if error.location is not None:
                raise
            raise self.source.error(node, error.message, hint=error.hint) from None


def _declares(node: ast.stmt) -> bool:
    """Whether ``node`` declares an array of the program: ``t = alloc(i8[4, 16])``, or ``t: i8``."""
    match node:
        case ast.Assign(value=ast.Call(func=ast.Name(id="alloc"))) | ast.AnnAssign(value=None):
            return True
    return False
