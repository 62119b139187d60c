"""The two doors of the kernel language: the ``@kernel`` decorator and ``parse`` for text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from tilewright.ir import types as ty
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Kernel
from tilewright.lang.scope import Scope, check_name
from tilewright.lang.source import Source
from tilewright.lang.statements import StatementReader
from tilewright.util.errors import LanguageError, Location


@overload
def kernel(fn: Callable[..., Any], /) -> Kernel: ...
@overload
def kernel(*, params: Sequence[str] = (), instruction: str | None = None) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(
    fn: Callable[..., Any] | None = None, /, *, params: Sequence[str] = (), instruction: str | None = None
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """Turn a Python function into a :class:`Kernel`; its body is read, never run.

    ``params`` names symbolic sizes used in the annotations. Globals and closure variables that are
    numbers, tuples of numbers, element types or kernels are compile-time constants of the program.
    ``instruction`` names the machine instruction that the body defines.

    Raises LanguageError (with file and line) for what the language does not allow, IRTypeError for
    types, ranks and shapes that do not fit.
    """
    # Names used only in annotations are not closure variables: they are read off the defining frame.
    frame = inspect.currentframe()
    around = dict(frame.f_back.f_locals) if frame is not None and frame.f_back is not None else {}
    if fn is None:
        return lambda f: _from_function(f, around, params, instruction)
    return _from_function(fn, around, params, instruction)


def parse(text: str, /, **names: Any) -> Kernel:
    """The kernel that ``text`` defines (the last one, if it defines several that call each other).

    ``names`` are the constants, element types and kernels the text may refer to.
    ``parse(str(k), **callees) == k`` for every kernel ``k``.
    """
    lines = tuple(text.splitlines())
    source = Source("<text>", lines)
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        row = error.lineno or 1
        where = Location("<text>", row, lines[row - 1] if row <= len(lines) else "")
        raise LanguageError(f"not Python syntax: {error.msg}", location=where) from None
    except (RecursionError, MemoryError):  # CPython's limits on nesting
        raise LanguageError("an expression is nested too deeply for Python", hint="split it with local scalars") from None
    known = dict(names)
    last: Kernel | None = None
    for node in module.body:
        if not isinstance(node, ast.FunctionDef):
            raise source.error(
                node,
                f"`{ast.unparse(node).splitlines()[0]}` is not a kernel definition",
                hint="write @kernel and def name(a: f32[64], ...):",
            )
        params, instruction = _options(source, node)
        last = known[node.name] = _read(source, node, known, params, instruction)
    if last is None:
        raise LanguageError("the text defines no kernel", hint="write @kernel and def name(a: f32[64], ...):")
    return last


def _from_function(fn: Callable[..., Any], around: Mapping[str, Any], params: Sequence[str], instruction: str | None) -> Kernel:
    if not inspect.isfunction(fn):
        raise LanguageError(f"@kernel decorates functions, not {type(fn).__name__}")
    try:
        lines, first = inspect.getsourcelines(fn)
    except (OSError, TypeError):
        raise LanguageError(f"the source of {fn.__name__} is not available", hint="define it in a file, or use parse(text)") from None
    text = textwrap.dedent("".join(lines))
    source = Source(inspect.getsourcefile(fn) or "<unknown>", tuple(text.splitlines()), first)
    node = ast.parse(text).body[0]
    if not isinstance(node, ast.FunctionDef):
        raise source.error(node, "@kernel decorates a plain def")
    return _read(source, node, _visible(fn, around), params, instruction)


def _visible(fn: Callable[..., Any], around: Mapping[str, Any]) -> Mapping[str, Any]:
    """Globals, locals ``around`` the definition, closure variables (an empty cell has no meaning yet)."""
    names: dict[str, Any] = {**fn.__globals__, **around}  # type: ignore[attr-defined]
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):  # type: ignore[attr-defined]
        try:
            names[name] = cell.cell_contents
        except ValueError:
            names.pop(name, None)
    return names


def _options(source: Source, node: ast.FunctionDef) -> tuple[Sequence[str], str | None]:
    """``params`` and ``instruction`` of the decorator, read from its text."""
    if len(node.decorator_list) != 1:
        raise source.error(node, f"{node.name} needs the one decorator @kernel")
    decorator = node.decorator_list[0]
    call = decorator if isinstance(decorator, ast.Call) else None
    if ast.unparse(call.func if call else decorator) != "kernel" or (call and call.args):
        raise source.error(node, f"`@{ast.unparse(decorator)}` is not @kernel", hint='@kernel or @kernel(params=("M", "N"))')
    options: dict[str | None, Any] = {}
    for k in call.keywords if call else []:
        try:
            options[k.arg] = ast.literal_eval(k.value)
        except ValueError:
            raise source.error(node, f"`{ast.unparse(k.value)}` is not a literal") from None
    if unknown := set(options) - {"params", "instruction"}:
        raise source.error(node, f"@kernel has no option {sorted(map(str, unknown))[0]!r}", hint="options: params, instruction")
    return options.get("params", ()), options.get("instruction")


def _read(source: Source, node: ast.FunctionDef, outside: Mapping[str, Any], params: Sequence[str], instruction: str | None) -> Kernel:
    """The kernel of one function definition."""
    a = node.args
    if a.posonlyargs or a.kwonlyargs or a.vararg or a.kwarg or a.defaults:
        raise source.error(
            node, f"{node.name}: parameters are plain, like a: f32[64]", hint="no defaults, *args or keyword-only parameters"
        )
    scope = Scope(outside)
    reader = StatementReader(source, scope)
    with source.blame(node):
        if isinstance(params, str) or not all(isinstance(p, str) for p in params):
            raise source.error(node, f"params={params!r} is not a tuple of names", hint='params=("M", "N")')
        sizes = tuple(Var(scope.fresh(p), ty.index) for p in params)
        if len({*params}) != len(params):
            raise source.error(node, f"params={tuple(params)!r} names a size twice")
        for v in sizes:
            scope.bind(v.name, v)
        check_name(node.name)
    buffers = []
    for arg in a.args:
        if arg.annotation is None:
            raise source.error(arg, f"parameter {arg.arg} has no type", hint=f"write {arg.arg}: f32[64]")
        declared = reader.declarations.annotation(arg.annotation)
        with source.blame(arg):
            if scope.declared(arg.arg):
                raise source.error(arg, f"parameter {arg.arg} is already a size or parameter")
            b = declared.buffer(scope.fresh(arg.arg))
        scope.bind(arg.arg, b)
        buffers.append(b)
    try:
        body = reader.block(node.body)
    except RecursionError:
        raise source.error(node, f"{node.name}: an expression is nested too deeply", hint="split it with local scalars") from None
    return Kernel(node.name, tuple(buffers), body, sizes, instruction, source.location(node))
