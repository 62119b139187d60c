"""``tilewright map``: how an operator's iterations can ride on an instruction's axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from tilewright.cli.console import bytes_text, stdout, table
from tilewright.hw import Instruction, Machine, load_machine
from tilewright.ir.types import DType
from tilewright.mapping import Mapping, explain, find_mappings, operator_of, rank, target_of
from tilewright.mapping.operator import Operator, plain
from tilewright.mapping.operators import Types, build_operator
from tilewright.mapping.target import Target
from tilewright.util.errors import MappingError


def map_command(
    operator: Annotated[
        str, typer.Argument(help="conv2d, matmul, depthwise, ... or an AMOS name: GMV GMM C1D C2D C3D T2D GRP DIL DEP ...")
    ],
    shape: Annotated[str, typer.Option(help="extents by iteration name, e.g. n=1,k=64,p=56,q=56,c=64,r=3,s=3,stride=2")] = "",
    machine: Annotated[str, typer.Option(help="a machine of the library (tilewright machine list)")] = "cuda.sm80",
    instruction: Annotated[
        str | None, typer.Option(help="an instruction or a family of them; default: the first that fills most axes")
    ] = None,
    space: Annotated[str, typer.Option(help="complete: every valid mapping; amos: the published enumeration")] = "complete",
    orders: Annotated[str, typer.Option(help="operand orders of commutative arithmetic: auto, declared, all")] = "auto",
    limit: Annotated[int, typer.Option(min=0, help="rows to print (0: all)")] = 0,
    explain_text: Annotated[str | None, typer.Option("--explain", help='why a mapping holds or fails, e.g. "i<-n j<-k k<-c*r*s"')] = None,
) -> None:
    """List the mappings of an operator onto an instruction, least padded work first.

    "i<-p*q j<-k k<-c" reads: instruction axis i takes the fused iterations p and q, j takes k, k
    takes c. "work" is what padding multiplies the arithmetic by, "issues" the instructions executed,
    "packed" the bytes rearranged, "tile" the bytes of one instruction's operands.

    [bold]Examples[/]

      tilewright map conv2d

      tilewright map depthwise --space amos --shape c=8,m=2 --machine gemmini

      tilewright map conv2d --machine cuda.sm80 --explain "i<-r j<-k k<-c"
    """
    console = stdout()
    extents = read_shape(shape)
    device = load_machine(machine)
    targets = choose_targets(device, instruction, operator, extents)
    if explain_text is not None:
        target = targets[0]
        console.print(escape(explain(operator_for(operator, target, extents), target, explain_text)), highlight=False)
        return
    found = [m for t in targets for m in find_mappings(operator_for(operator, t, extents), t, space, orders=orders)]
    _print(console, device, targets, rank(found), space, limit)


def read_shape(text: str) -> dict[str, int]:
    """``n=1,k=64`` as a dict; MappingError names the part that is not NAME=INT."""
    out = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        if not value.strip().isdigit():
            raise MappingError(f"--shape: {part!r} is not NAME=INT", hint="write like n=1,k=64,p=56,q=56,c=64,r=3,s=3")
        out[name.strip()] = int(value)
    return out


def choose_targets(machine: Machine, wanted: str | None, operator: str, extents: dict[str, int]) -> list[Target]:
    """The instruction or family called ``wanted``; by default the first whose axes the operator fills best.

    Raises MappingError when nothing fits.
    """
    known = [i for i in machine.instructions if i.axes and i.inputs]
    if wanted is not None:
        chosen = [i for i in known if wanted in (i.name, i.family)]
        if not chosen:
            names = ", ".join(dict.fromkeys(i.family or i.name for i in known))
            raise MappingError(f"machine {machine.name} has no instruction {wanted!r} with axes", hint=f"it has: {names}")
        return [target_of(i) for i in chosen]
    best = max((t for i in known if (t := _mappable(i)) is not None), key=lambda t: _axes_filled(t, operator, extents), default=None)
    if best is None or not _axes_filled(best, operator, extents):
        raise MappingError(
            f"no instruction of {machine.name} computes {operator}", hint="name one with --instruction and ask --explain why"
        )
    return [best]


def _mappable(instruction: Instruction) -> Target | None:
    """The instruction as a target, if it combines two operands (what the operators here need)."""
    target = target_of(instruction)
    return target if len(target.view.sources) == 2 else None


def _axes_filled(target: Target, operator: str, extents: dict[str, int]) -> int:
    found = find_mappings(operator_for(operator, target, extents), target)
    return max((sum(map(bool, m.groups)) for m in found), default=0)


def operator_for(name: str, target: Target, extents: dict[str, int]) -> Operator:
    """The operator in the element types of the instruction."""
    return operator_of(build_operator(name.lower(), _types(target), **extents))


def _types(target: Target) -> Types:
    sources: list[DType] = [plain(s.expr).dtype for s in target.view.sources]
    if len(sources) != 2:
        raise MappingError(f"{target.name} has {len(sources)} source operands, the operators here two")
    return sources[0], sources[1], target.view.output.dtype


def _print(console: Console, machine: Machine, targets: Sequence[Target], found: Sequence[Mapping], space: str, limit: int) -> None:
    name = targets[0].name if len(targets) == 1 else f"{len(targets)} shapes"
    if not found:
        console.print(f"no mapping onto {machine.name} {name}; --explain a candidate to see why")
        return
    op = found[0].op
    extents = " ".join(f"{i.name}={i.extent}" for i in op.iterations)
    console.print(
        f"[bold]{op.name}[/] {extents}\n{len(found)} mappings ({space}) onto [bold]{machine.name} {escape(name)}[/]", highlight=False
    )
    numbers = ("work", "issues", "packed", "tile")
    out = table(*(["shape"] if len(targets) > 1 else []), "mapping", *numbers, numbers=numbers)
    for m in found[: limit or None]:
        p = m.physical()
        row = [
            escape(str(m)),
            f"{float(p.padded_work):.3f}x",
            f"{p.instructions:,}",
            bytes_text(p.packing_bytes),
            bytes_text(sum(p.footprint.values())),
        ]
        out.add_row(*([_member(m.target)] if len(targets) > 1 else []), *row)
    console.print(out)
    if limit and len(found) > limit:
        console.print(f"{len(found) - limit} more")


def _member(target: Target) -> str:
    """The name of an instruction within its family."""
    return target.name.removeprefix(f"{target.declaration.family}.") if target.declaration else target.name
