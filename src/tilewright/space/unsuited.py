"""Why a machine of instruction words does nothing of a kernel: words for people."""

from __future__ import annotations

from functools import cache

from tilewright.hw import Machine, list_machines, load_machine
from tilewright.ir.printer import expr_text
from tilewright.ir.stmt import Kernel, Store
from tilewright.ir.types import DType
from tilewright.schedule.unify import chain_of
from tilewright.space.stages import Stage, stages

#: Types of two factors and of the sums of their products.
Types = tuple[DType, DType, DType]


def unsuited(kernel: Kernel, machine: Machine) -> str:
    """That the types of its products are not what the machine multiplies, and which machine of its family does; or that there are none."""
    nests = stages(kernel)
    products = [t for s in nests if s.store is not None and s.is_reduction and (t := _types(s)) is not None]
    known = _multiplied(machine)
    wrong = next((t for t in products if t not in known), None)
    if wrong is not None and known:
        others = _others(machine.name, wrong)
        way_out = f"{' or '.join(others)} does" if others else "convert the factors"
        return f"it sums {_text(wrong)}, {machine.name} {' or '.join(map(_text, known))} ({way_out})"
    sums = [s for s in nests if s.is_reduction and s.factors(masked=True) is not None]
    if sums and all(s.loops[n] == 1 for s in sums for n in s.reduction):
        return "each of its sums is one product: there is no loop to sum over"
    if products:
        return "no instruction takes its sums of products"
    values = [expr_text(s.store.value) for s in nests if s.store is not None]
    return f"no sums of products, and no moves that do {values[-1] if len(values) == 1 else f'its {len(values)} nests'}"


def _text(types: Types) -> str:
    a, b, c = types
    return f"products of {a} and {b} in {c}"


def _types(s: Stage) -> Types | None:
    factors = s.factors(masked=True)
    return None if factors is None else (factors[0].dtype, factors[1].dtype, s.output.dtype)


def _multiplied(machine: Machine) -> list[Types]:
    """What its instructions multiply and add up."""
    found: dict[Types, None] = {}
    for i in machine.instructions:
        chain = chain_of(i.kernel.body)
        types = _types(Stage(i.kernel.body, chain.store, {}, ())) if chain is not None and isinstance(chain.store, Store) else None
        if types is not None:
            found[types] = None
    return list(found)


@cache
def _others(name: str, types: Types) -> tuple[str, ...]:
    """Machines of the library, named like this one up to a point or colon, that multiply these types."""
    family = name.partition(":")[0].partition(".")[0]
    alike = [n for n in list_machines() if n.partition(".")[0] == family]
    return tuple(n for n in alike if types in _multiplied(load_machine(n)))
