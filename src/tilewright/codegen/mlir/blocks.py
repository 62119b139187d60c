"""Block IR in MLIR: blocks are tensors, operations are those of a dialect ``block`` that an IRDL file declares, loops are scf.for."""

from __future__ import annotations

import re
from typing import Any

from tilewright.codegen.mlir.builder import literal
from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.lang.block.ir import BlockType, Function, Op, Pointer, Region, walk
from tilewright.util.errors import CodegenError

#: Forms of an operation that differ in their operands: masked accesses, a product that is added to something.
_FORMS = {("load", 3): "load_masked", ("store", 3): "store_masked", ("dot", 3): "dot_add", ("math", 2): "math_2", ("math", 3): "math_3"}


def emit_block_mlir(function: Function) -> str:
    """A module with ``func.func @name``; needs the dialect of :func:`emit_block_irdl` to be verified.

    Pointers are ``!block.ptr<"f32">`` (the element's name), unsigned elements uiN, others signless. CodegenError for fixed point.
    """
    arguments = ", ".join(f"{a}: {_type(a.type)}" for a in function.arguments)
    return "\n".join(["module {", f"  func.func @{function.name}({arguments}) {{", *_ops(function.ops, 2), "    return", "  }", "}"]) + "\n"


def emit_block_irdl(function: Function) -> str:
    """The dialect of the operations in ``function``: how many operands and results each has (types are not related)."""
    found = {_name(op): op for op in walk(function.ops) if op.region is None}
    lines = ["irdl.dialect @block {", "  irdl.type @ptr {", "    %element = irdl.any", "    irdl.parameters(element: %element)", "  }"]
    for name, op in found.items():
        operands, results = [f"in{n}" for n in range(len(op.operands))], ["out"] * (op.result is not None)
        lines.append(f"  irdl.operation @{name} {{")
        lines += [f"    %{v} = irdl.any" for v in (*operands, *results)]  # one each: a constraint that is shared means equal types
        for kind, values in (("operands", operands), ("results", results)):
            if values:
                lines.append(f"    irdl.{kind}({', '.join(f'{v}: %{v}' for v in values)})")
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _name(op: Op) -> str:
    """The operation's name; its forms with more operands have names of their own."""
    return _FORMS.get((op.name, len(op.operands)), re.sub(r"\W", "_", op.name))


def _ops(ops: list[Op], depth: int) -> list[str]:
    return [line for op in ops for line in (_looped(op, op.region, depth) if op.region is not None else [_op(op, depth)])]


def _op(op: Op, depth: int) -> str:
    left = f"{op.result} = " if op.result is not None else ""
    attributes = ", ".join(f"{k} = {_attribute(v)}" for k, v in op.attributes.items() if v is not None)
    operands, types = ", ".join(map(str, op.operands)), ", ".join(_type(v.type) for v in op.operands)
    result = _type(op.result.type) if op.result is not None else "()"
    return (
        f'{"  " * depth}{left}"block.{_name(op)}"({operands})' + (f" {{{attributes}}}" if attributes else "") + f" : ({types}) -> {result}"
    )


def _looped(op: Op, r: Region, depth: int) -> list[str]:
    return _loop(op, r, depth) if r.test is None else _while(op, r, depth)


def _loop(op: Op, r: Region, depth: int) -> list[str]:
    """The step is a constant; results of scf.for are one group, which is taken apart by renaming."""
    indent, (lo, hi), kind = "  " * depth, op.operands[:2], _type(r.variable.type)
    step = f"{r.variable}_step"
    lines = [f"{indent}{step} = arith.constant {op.attributes['step']} : {kind}"]
    carried = ", ".join(f"{a} = {i}" for a, i in zip(r.arguments, op.operands[2:], strict=True))
    types = ", ".join(_type(v.type) for v in r.arguments)
    left = f"{', '.join(map(str, r.results))} = " if r.results else ""
    tail = f" iter_args({carried}) -> ({types})" if r.arguments else ""
    lines.append(f"{indent}{left}scf.for {r.variable} = {lo} to {hi} step {step}{tail} : {kind} {{")
    lines += _ops(r.ops, depth + 1)
    if r.yields:
        lines.append(f"{indent}  scf.yield {', '.join(map(str, r.yields))} : {types}")
    return [*lines, indent + "}"]


def _while(op: Op, r: Region, depth: int) -> list[str]:
    """The first region computes the condition and hands on what is carried, the second is the body."""
    assert r.test is not None  # it is a while
    indent = "  " * depth
    carried = ", ".join(f"{a} = {i}" for a, i in zip(r.arguments, op.operands[2:], strict=True))
    types = ", ".join(_type(v.type) for v in r.arguments)
    names = ", ".join(map(str, r.arguments))
    left = f"{', '.join(map(str, r.results))} = " if r.results else ""
    lines = [f"{indent}{left}scf.while ({carried}) : ({types}) -> ({types}) {{", *_ops(r.ops[: r.head], depth + 1)]
    lines += [f"{indent}  scf.condition({r.test}) {names} : {types}", f"{indent}}} do {{"]
    lines.append(f"{indent}^bb0({', '.join(f'{a}: {_type(a.type)}' for a in r.arguments)}):")
    lines += _ops(r.ops[r.head :], depth + 1)
    return [*lines, f"{indent}  scf.yield {', '.join(map(str, r.yields))} : {types}", indent + "}"]


def _type(t: BlockType) -> str:
    element = f'!block.ptr<"{t.element.element_ty}">' if isinstance(t.element, Pointer) else _element(t.element)
    return f"tensor<{'x'.join([*map(str, t.shape), element])}>" if t.shape else element


def _element(t: DType) -> str:
    if t.is_fixed:
        raise CodegenError(f"blocks of {t} in MLIR", hint="cast them to integers")
    if t.is_float or t.kind == ty.INDEX:
        return str(t)
    return f"{'u' if t.kind == ty.UINT else ''}i{t.bits}"


def _attribute(v: Any) -> str:
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        return f"{v} : i64"
    if isinstance(v, float):
        return f"{literal(v, 'f64')} : f64"
    if isinstance(v, tuple):
        return f"[{', '.join(map(_attribute, v))}]"
    return f'"{v}"'
