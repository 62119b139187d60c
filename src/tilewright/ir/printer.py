"""The one text form of programs: what is printed here is what the kernel language parses.

A literal is printed bare where the parser would give it the same type (``x[i] * 2``), and with its
type where it would not (``x[i] * i32(2)``), so that ``parse(text) == program`` to the last type.
``x[i] = max(x[i], v)`` is the text of the reduction ``Store(x, (i,), v, "max")``, as ``+=`` is of "+".
"""

from __future__ import annotations

from tilewright.ir import types as ty
from tilewright.ir.buffer import MAIN_MEMORY, Buffer
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where, idx
from tilewright.ir.expr import loads as expr_loads
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Span, Stmt, Store, While, Window, walk
from tilewright.ir.types import DType
from tilewright.util.errors import IRTypeError

# Binding strength as in Python, weakest first.
_OR, _AND, _NOT, _COMPARE, _BITOR, _BITXOR, _BITAND, _SHIFT, _SUM, _PRODUCT, _UNARY, _ATOM = range(1, 13)
_STRENGTH = {
    "|": _BITOR,
    "^": _BITXOR,
    "&": _BITAND,
    "<<": _SHIFT,
    ">>": _SHIFT,
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "//": _PRODUCT,
    "%": _PRODUCT,
    "or": _OR,
    "and": _AND,
}
_INDENT = "    "


def expr_text(e: Expr) -> str:
    """``e`` as kernel-language text: as an index, or (literals of other types) with the type that it has."""
    bare = isinstance(e, Const) and (e.dtype.kind == ty.INDEX or _weak(e, None))
    return _literal(e) if bare else _text(e)[0]  # type: ignore[arg-type]


def window_text(w: Window) -> str:
    """The argument of a call: ``c[i, j:j + 16]``."""
    if not w.indices:
        return w.buffer.name
    return f"{w.buffer.name}[{', '.join(_span_text(i) if isinstance(i, Span) else _index_text(i) for i in w.indices)}]"


def stmt_text(s: Stmt) -> str:
    """``s`` and everything below it, without a trailing newline."""
    return "\n".join(_stmt_lines(s, ""))


def kernel_text(k: Kernel) -> str:
    """``k`` alone: kernels that it calls are named, not printed (see :func:`module_text`)."""
    options = []
    if k.sizes:
        options.append(f"params=({', '.join(_quoted(v.name) for v in k.sizes)}{',' * (len(k.sizes) == 1)})")
    if k.instruction is not None:
        options.append(f"instruction={_quoted(k.instruction)}")
    head = f"@kernel({', '.join(options)})" if options else "@kernel"
    args = ", ".join(f"{b.name}: {parameter_text(b)}" for b in k.args)
    return "\n".join([head, f"def {k.name}({args}):", *_body_lines(k.body, _INDENT)])


def module_text(k: Kernel) -> str:
    """``k`` preceded by every kernel it calls, so that the text parses on its own."""
    found: dict[str, Kernel] = {}

    def visit(kernel: Kernel) -> None:
        for s in walk(kernel.body):
            if isinstance(s, Call):
                visit(s.kernel)
        if found.setdefault(kernel.name, kernel) != kernel:
            raise IRTypeError(f"two different kernels called {kernel.name!r} are used by {k.name}", hint="rename one of them")

    visit(k)
    return "\n\n\n".join(kernel_text(x) for x in found.values())


# --- expressions ----------------------------------------------------------------------------


def _text(e: Expr) -> tuple[str, int]:
    """Text of a node that stands on its own (a literal says its type), and its binding strength."""
    match e:
        case Const():
            return f"{e.dtype}({_literal(e)})", _ATOM
        case Var():
            return e.name, _ATOM
        case Load():
            return _element_text(e.buffer, e.indices), _ATOM
        case Binary():
            return _binary_text(e)
        case Compare():
            a, b = _pair_text(e.a, e.b, _COMPARE + 1, _COMPARE + 1)
            return f"{a} {e.op} {b}", _COMPARE
        case Logical():
            strength = _STRENGTH[e.op]
            return f"{_wrapped(e.a, strength)} {e.op} {_wrapped(e.b, strength + 1)}", strength
        case Not():
            return f"not {_wrapped(e.a, _NOT)}", _NOT
        case Where():
            a, b = _pair_text(e.a, e.b, 0, 0)
            return f"where({_condition_text(e.cond)}, {a}, {b})", _ATOM
        case Cast():
            return f"{e.dtype}({_text(e.a)[0]})", _ATOM
        case Bitcast():
            return f"bitcast({_text(e.a)[0]}, {e.dtype})", _ATOM
        case Intrinsic():
            return f"{e.name}({', '.join(_argument_texts(e))})", _ATOM
    raise IRTypeError(f"{type(e).__name__} is not an expression node of the program form")


def _binary_text(e: Binary) -> tuple[str, int]:
    if e.op in ("min", "max"):
        a, b = _pair_text(e.a, e.b, 0, 0)
        return f"{e.op}({a}, {b})", _ATOM
    if e.op == "-" and not isinstance(e.b, Const) and e.a == Const(0, ty.weak_literal_type(0, e.b.dtype)):
        return f"-{_wrapped(e.b, _UNARY)}", _UNARY
    strength = _STRENGTH[e.op]
    a, b = _pair_text(e.a, e.b, strength, strength + 1)
    return f"{a} {e.op} {b}", strength


def _pair_text(a: Expr, b: Expr, left: int, right: int) -> tuple[str, str]:
    """Both operands; a literal is bare if the other operand gives it its type. Two bare ones would fold."""
    bare_a = isinstance(a, Const) and not isinstance(b, Const) and _weak(a, b.dtype)
    bare_b = isinstance(b, Const) and _weak(b, a.dtype)
    return _literal(a) if bare_a else _wrapped(a, left), _literal(b) if bare_b else _wrapped(b, right)  # type: ignore[arg-type]


def _argument_texts(e: Intrinsic) -> list[str]:
    """Arguments; literals are bare next to an argument that is not one."""
    typed = next((a.dtype for a in e.args if a.dtype.is_float and not isinstance(a, Const)), None)
    return [_literal(a) if isinstance(a, Const) and typed and _weak(a, typed) else _text(a)[0] for a in e.args]


def _wrapped(e: Expr, strength: int) -> str:
    text, own = _text(e)
    return text if own >= strength else f"({text})"


def _weak(c: Const, beside: DType | None) -> bool:
    """Would the bare literal get its own type next to an operand of type ``beside``?"""
    return c.dtype == (ty.weak_literal_type(c.value, beside) if beside else ty.literal_type(c.value))


def _literal(c: Const) -> str:
    return repr(c.value)  # inf and nan print as names the language knows


def _index_text(e: Expr) -> str:
    return _literal(e) if isinstance(e, Const) and e.dtype.kind == ty.INDEX else _text(e)[0]


def _condition_text(e: Expr) -> str:
    return _literal(e) if isinstance(e, Const) and e.dtype.kind == ty.BOOL else _text(e)[0]


def _element_text(b: Buffer, indices: tuple[Expr, ...]) -> str:
    return f"{b.name}[{', '.join(_index_text(i) for i in indices)}]" if indices else b.name


def _span_text(s: Span) -> str:
    hi = _index_text(s.lo + s.extent * s.step)
    lo = "" if s.lo == idx(0) else _index_text(s.lo)
    return f"{lo}:{hi}" + (f":{s.step}" if s.step != 1 else "")


# --- buffers, statements --------------------------------------------------------------------


def _type_text(b: Buffer) -> str:
    return f"{b.dtype}[{', '.join(_index_text(s) for s in b.shape)}]" if b.shape else str(b.dtype)


def parameter_text(b: Buffer) -> str:
    """What follows the name of a parameter: type, memory and layout of its buffer."""
    if b.layout is not None:
        return f"buffer({_type_text(b)}, {_place_text(b)})"
    return _type_text(b) if b.memory == MAIN_MEMORY else f"{_type_text(b)} @ {_quoted(b.memory)}"


def _place_text(b: Buffer) -> str:
    return _quoted(b.memory) + (f", layout={_quoted(str(b.layout))}" if b.layout is not None else "")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _body_lines(b: Block, pad: str) -> list[str]:
    """Statements of a block. A scalar that is set right after its declaration prints as ``acc: f32 = 0.0``."""
    if not b.stmts:
        return [f"{pad}pass"]
    out: list[str] = []
    previous: Stmt | None = None
    for s in b.stmts:
        if isinstance(previous, Alloc) and isinstance(s, Store) and _initialises(previous, s):
            out[-1] = f"{pad}{s.buffer.name}: {s.buffer.dtype} = {_value_text(s)}"
        else:
            out.extend(_stmt_lines(s, pad))
        previous = s
    return out


def _initialises(a: Alloc, s: Store) -> bool:
    b = a.buffer
    plain = b == s.buffer and not b.shape and b.memory == MAIN_MEMORY and b.layout is None
    return plain and s.op is None and all(ld.buffer.name != b.name for ld in expr_loads(s.value))


def _value_text(s: Store) -> str:
    bare = isinstance(s.value, Const) and _weak(s.value, s.buffer.dtype)
    return _literal(s.value) if bare else _text(s.value)[0]  # type: ignore[arg-type]


def _stmt_lines(s: Stmt, pad: str) -> list[str]:
    inner = pad + _INDENT
    match s:
        case Block():
            return [f"{pad}with block():", *_body_lines(s, inner)]
        case Store(op="min" | "max"):
            target = _element_text(s.buffer, s.indices)
            return [f"{pad}{target} = {s.op}({target}, {_value_text(s)})"]
        case Store():
            return [f"{pad}{_element_text(s.buffer, s.indices)} {s.op or ''}= {_value_text(s)}"]
        case For():
            return [f"{pad}for {s.name} in {_range_text(s)}:", *_body_lines(s.body, inner)]
        case If():
            return _if_lines(s, pad, "if")
        case While():
            return [f"{pad}while {_condition_text(s.cond)}:", *_body_lines(s.body, inner)]
        case Alloc():
            return [f"{pad}{_alloc_text(s.buffer)}"]
        case Call():
            args = [*(_index_text(e) for e in s.sizes), *(window_text(w) for w in s.args)]
            return [f"{pad}{s.kernel.name}({', '.join(args)})"]
    raise IRTypeError(f"{type(s).__name__} is not a statement node of the program form")


def _if_lines(s: If, pad: str, word: str) -> list[str]:
    out = [f"{pad}{word} {_condition_text(s.cond)}:", *_body_lines(s.then, pad + _INDENT)]
    if s.orelse is None:
        return out
    if len(s.orelse.stmts) == 1 and isinstance(s.orelse.stmts[0], If):
        return out + _if_lines(s.orelse.stmts[0], pad, "elif")
    return [*out, f"{pad}else:", *_body_lines(s.orelse, pad + _INDENT)]


def _range_text(s: For) -> str:
    args = [_index_text(s.lo), _index_text(s.hi), str(s.step)]
    if s.step == 1:
        args.pop()
        if s.lo == idx(0):
            args.pop(0)
    if s.kind is LoopKind.BIND:
        args.insert(0, _quoted(s.unit or ""))
    return f"{s.kind.value}({', '.join(args)})"


def _alloc_text(b: Buffer) -> str:
    if b.memory == MAIN_MEMORY and b.layout is None:
        return f"{b.name}: {b.dtype}" if not b.shape else f"{b.name} = alloc({_type_text(b)})"
    return f"{b.name} = alloc({_type_text(b)}, {_place_text(b)})"
