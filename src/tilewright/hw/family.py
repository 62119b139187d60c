"""Machines of one kind and any size: what mappings may do on them, and the smallest one that a mapping fits.

A :class:`Family` adds to a :class:`~tilewright.hw.hierarchy.Hierarchy` which dimensions may have loops at each level, in
which orders, and which may be spread over units side by side. Its parameters are inferred: a search chooses mappings, and the
machine is the smallest that all of them fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tilewright.hw.hierarchy import Hierarchy
from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class Use:
    """What a mapping takes of a machine, by name of level: words ``held`` by one instance, ``units`` side by side below the level.

    Values are numbers, arrays or tensors.
    """

    held: Mapping[str, Any]
    units: Mapping[str, Any]


#: What one mapping needs of a parameter, given its use and the parameters declared before. Plain operators only.
Need = Callable[[Use, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A size of the machine: the largest of its ``needs``, rounded up to a multiple of ``step``, within ``least`` and ``most``."""

    name: str
    needs: tuple[Need, ...]
    step: int = 1
    least: int = 1
    most: float = float("inf")

    def __post_init__(self) -> None:
        if not self.needs or self.step < 1 or self.least < 1 or self.most < self.least:
            raise MachineError(
                f"parameter {self.name} has {len(self.needs)} needs, step {self.step}, limits {self.least} and {self.most}",
                hint="one need or more; step and least of 1 or more; most no less than least",
            )


@dataclass(frozen=True, slots=True)
class Family:
    """Machines with one ``hierarchy``. Tuples have one entry for each level, the outermost first.

    ``keeps``: the tensors a level holds, or several choices of them (a mapping takes one; what a level does not hold passes it by).
    ``orders``: the orders (outermost loop first) its loops in time may have, all of the same dimensions. ``spatial``: the dimensions
    spread over units below the level, ``fanout``: at most how many units. ``area`` gives square millimetres of a machine from its
    parameters, in plain operators; ``files``, by name, the text of files for its tools, from a name and the parameters; ``array_rates``
    what a square array's parts take, fitted to measured cycles (:class:`tilewright.cost.residual.Rates`).
    MachineError when an entry is missing, a level has no choice of tensors, the outermost one does not hold all that others do, orders of
    a level differ in their dimensions, a fan-out is less than 1, a parameter is declared twice or not at all, or a rate, need or the area
    asks for what there is not, or is no number that makes sense for the smallest machine.
    """

    name: str
    hierarchy: Hierarchy
    keeps: tuple[tuple[str, ...], ...]
    orders: tuple[tuple[str, ...], ...]
    spatial: tuple[str, ...]
    fanout: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    area: Callable[[Mapping[str, Any]], Any] | None = None
    files: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = field(default_factory=dict)
    array_rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        levels = len(self.hierarchy.levels)
        for what, entries in (("keeps", self.keeps), ("orders", self.orders), ("spatial", self.spatial), ("fanout", self.fanout)):
            if len(entries) != levels:
                raise MachineError(
                    f"family {self.name} has {len(entries)} entries of {what}",
                    hint=f"one for each of the {levels} levels, the outermost first",
                )
        for storage, orders in zip(self.hierarchy.levels, self.orders, strict=True):
            if not orders or len({frozenset(o) for o in orders}) > 1 or any(len(set(o)) < len(o) for o in orders):
                raise MachineError(
                    f"orders of level {storage.name} of {self.name} are {', '.join(orders) or 'none'}",
                    hint="one order or more, each of all its dimensions once ('' where it has no loops)",
                )
        self._check_keeps()
        if wrong := [n for n in self.fanout if n < 1]:
            raise MachineError(f"family {self.name} has a fan-out of {wrong[0]}", hint="1 where nothing is spread over units")
        if not self.parameters:
            raise MachineError(f"family {self.name} has no parameters", hint="declare what its machines differ in, at least one size")
        declared = [p.name for p in self.parameters]
        if sorted(declared) != sorted(self.hierarchy.parameters):
            raise MachineError(
                f"family {self.name} infers {', '.join(declared) or 'nothing'}, its hierarchy has {', '.join(self.hierarchy.parameters)}",
                hint="declare each parameter of the hierarchy once",
            )
        self._check_values()

    def _check_values(self) -> None:
        """Needs, rates and the area for the smallest machine, each level of which holds a word: numbers that make sense."""
        levels, least = [s.name for s in self.hierarchy.levels], {p.name: p.least for p in self.parameters}
        use, before = Use(dict.fromkeys(levels, 1), dict.fromkeys(levels, 1)), dict[str, int]()
        for p in self.parameters:
            for need in p.needs:
                _check(f"a need of parameter {p.name} of {self.name}", partial(need, use, before))
            before[p.name] = p.least
        h = self.hierarchy
        _check(f"arithmetic of {self.name}", partial(h.rate, h.arithmetic, least), zero=True)
        for s in h.levels:
            rates = {"energy": s.energy, "words_per_cycle": s.words_per_cycle, "words": s.words, "line": s.line}
            for what, rate in rates.items():
                if rate is not None:
                    _check(f"{what} of level {s.name} of {self.name}", partial(h.rate, rate, least), zero=what == "energy")
        if self.area is not None:
            _check(f"the area of {self.name}", partial(self.area, least))

    def _check_keeps(self) -> None:
        every = {t for choices in self.keeps for own in choices for t in own}
        for storage, choices in zip(self.hierarchy.levels, self.keeps, strict=True):
            if not choices or isinstance(choices, str) or any(len(set(own)) < len(own) for own in choices):
                raise MachineError(
                    f"level {storage.name} of {self.name} keeps {choices!r}",
                    hint="give a tuple of choices, each the letters of its tensors once, as ('WI',) or ('WI', 'W')",
                )
        if any(set(own) != every for own in self.keeps[0]):
            outer, held = self.hierarchy.levels[0].name, " or ".join(self.keeps[0])
            raise MachineError(
                f"level {outer} of {self.name} keeps {held}, others have {''.join(sorted(every))}",
                hint="the outermost level holds every tensor",
            )

    def units(self, level: str, machine: Mapping[str, float]) -> int:
        """The most units side by side below ``level`` that ``machine`` has: as many as need no more of any parameter than it gives."""
        names = [s.name for s in self.hierarchy.levels]
        nothing = dict.fromkeys(names, 0)

        def fits(n: int) -> bool:
            use = Use(nothing, {**dict.fromkeys(names, 1), level: n})
            return all(need(use, machine) <= machine[p.name] for p in self.parameters for need in p.needs)

        low, high = 1, self.fanout[names.index(level)]
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low


def _check(what: str, value: Callable[[], Any], zero: bool = False) -> None:
    """MachineError unless ``value()`` is a number above 0, or 0 where that is allowed."""
    try:
        found = value()
    except KeyError as error:
        raise MachineError(
            f"{what} asks for {error.args[0]!r}",
            hint="levels are those of the hierarchy; a need sees the parameters declared before its own, a rate all of them",
        ) from error
    if isinstance(found, bool) or not isinstance(found, int | float) or not (found > 0 or (zero and found == 0)):
        raise MachineError(f"{what} is {found!r} for the smallest machine", hint=f"give a number {'from' if zero else 'above'} 0")
