"""Random programs of nests over arrays of all types, in loops of every kind.

Values are small whole numbers where there are floats, so that most sums of them are exact in every order.
"""

from __future__ import annotations

from random import Random

import numpy as np

from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import evaluate
from tilewright.ir.stmt import Kernel
from tilewright.lang import parse

FLOATS = ("f16", "bf16", "f32", "f64")
INTEGERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "bool")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


class RandomNests:
    """One random program; ``build`` gives the kernel, IRTypeError where an operator is not defined for the types it met."""

    def __init__(self, rng: Random):
        self.rng = rng
        self.rows, self.columns = rng.choice((1, 2, 3, 5, 8)), rng.choice((1, 3, 4, 7, 8, 16, 17, 24, 33))
        self.height = rng.choice((str(self.rows), str(self.rows), "N"))  # as it is written
        self.lines: list[str] = []
        self.types: dict[str, str] = {}
        self.names = 0

    def build(self) -> Kernel:
        rng = self.rng
        inputs = ("a", "b", "c")
        self.types = {n: rng.choice((*FLOATS, *INTEGERS)) for n in (*inputs, "y")}
        readable = list(inputs)
        for stage in range(rng.randrange(1, 4)):
            target = f"t{stage}" if rng.random() < 0.5 else f"y{stage}"
            self.types[target] = rng.choice((*FLOATS, *INTEGERS))
            if target.startswith("t"):
                plain = ('"dram"', '"l1"', '"dram", layout="1/4 0 1"', '"dram", layout="1 0"')
                memory = rng.choice(plain if self.height == "N" else (*plain, '"reg"'))
                self.lines.append(f"    {target} = alloc({self.types[target]}[{self.height}, {self.columns}], {memory})")
            rng.choice((self.elements, self.reduction, self.update, self.branches, self.private))(target, readable)
            readable.append(target)
        self.elements("y", readable)
        arguments = [n for n in self.types if not n.startswith("t")]
        shape = f"[{self.height}, {self.columns}]"
        sizes = '(params=("N",))' if self.height == "N" else ""
        return parse(
            f"@kernel{sizes}\ndef nests(" + ", ".join(f"{n}: {self.types[n]}{shape}" for n in arguments) + "):\n" + "\n".join(self.lines)
        )

    # nests

    def elements(self, target: str, readable: list[str]) -> None:
        """Every element of ``target``, in loops of any kind, perhaps in steps or blocks."""
        i, j = self.fresh("i"), self.fresh("j")
        kinds = ("range", "range", "vector", "unroll", "parallel")
        outer, inner = self.rng.choice(kinds), self.rng.choice((*kinds, "vector"))
        if self.rng.random() < 0.25:  # columns outside
            self.nest([(j, outer, self.columns), (i, inner, self.height)], f"{target}[{i}, {j}] = {self.value(readable, i, j)}")
        elif self.rng.random() < 0.3:  # blocks of columns, the last one guarded
            block = self.rng.choice((2, 4, 8, 16))
            jo, ji = f"{j}o", f"{j}i"
            column = f"{jo} * {block} + {ji}"
            loops = [(i, outer, self.height), (jo, "range", -(-self.columns // block)), (ji, inner, block)]
            self.nest([*loops], f"{target}[{i}, {column}] = {self.value(readable, i, f'({column})')}", f"if {column} < {self.columns}:")
        else:
            self.nest([(i, outer, self.height), (j, inner, self.columns)], f"{target}[{i}, {j}] = {self.value(readable, i, j)}")

    def update(self, target: str, readable: list[str]) -> None:
        """Every element, then some of them again."""
        self.elements(target, readable)
        i, j = self.fresh("i"), self.fresh("j")
        operator = self.rng.choice(("+=", "-=", "*=")) if self.types[target] != "bool" else "|="
        value = self.value(readable, i, j)
        step = self.rng.choice((1, 2, 3))
        loops = [
            (i, self.rng.choice(("range", "parallel")), self.height),
            (j, self.rng.choice(("vector", "range", "unroll")), self.columns),
        ]
        self.nest(loops, f"{target}[{i}, {j}] {operator} {self.narrowed(value, target)}", step=step)

    def reduction(self, target: str, readable: list[str]) -> None:
        """A row of sums or extrema, spread over the target."""
        rng, kind = self.rng, self.types[target]
        self.elements(target, readable)
        i, j = self.fresh("i"), self.fresh("j")
        at = rng.choice((f"{i}, 0", f"{self.height} - 1 - {i}, {self.columns // 2}", f"{i}, {self.columns - 1}"))
        value = self.narrowed(self.value(readable, i, j), target)
        operator = rng.choice(("+", "+", "min", "max", *(("&", "|", "^") if kind not in FLOATS else ())))
        if operator in ("min", "max"):
            line = f"{target}[{at}] = {operator}({target}[{at}], {value})"
        else:
            line = f"{target}[{at}] {'|' if kind == 'bool' else operator}= {value}"
        # Target elements are read by none of the values: the loops may run in lanes.
        outer, inner = rng.choice(("range", "parallel", "unroll")), rng.choice(("vector", "vector", "range", "unroll"))
        guard = rng.choice(("", "", f"if {self.condition(readable, i, j)}:"))
        self.nest([(i, outer, self.height), (j, inner, self.columns)], line, guard)

    def branches(self, target: str, readable: list[str]) -> None:
        """Every element, under a condition or its opposite."""
        i, j = self.fresh("i"), self.fresh("j")
        loops = [
            (i, self.rng.choice(("range", "parallel")), self.height),
            (j, self.rng.choice(("vector", "vector", "range")), self.columns),
        ]
        self.nest(loops, f"{target}[{i}, {j}] = {self.value(readable, i, j)}", f"if {self.condition(readable, i, j)}:")
        self.lines += [f"            else:\n                {target}[{i}, {j}] = {self.value(readable, i, j)}"]

    def private(self, target: str, readable: list[str]) -> None:
        """Rows through an array that every iteration has of its own."""
        i, j, k = self.fresh("i"), self.fresh("j"), self.fresh("j")
        own, kinds = f"own{self.names}", ("vector", "vector", "range", "unroll")
        self.nest(
            [(i, self.rng.choice(("range", "parallel", "parallel")), self.height)], f"{own} = alloc({self.types[target]}[{self.columns}])"
        )
        self.lines.append(f"        for {j} in {self.rng.choice(kinds)}({self.columns}):")
        self.lines.append(f"            {own}[{j}] = {self.value(readable, i, j)}")
        self.lines.append(f"        for {k} in {self.rng.choice(kinds)}({self.columns}):")
        self.lines.append(f"            {target}[{i}, {k}] = {own}[{self.columns - 1} - {k}] + {own}[{k}]")

    def nest(self, loops: list[tuple[str, str, object]], line: str, guard: str = "", step: int = 1) -> None:
        depth = 1
        for n, (name, kind, extent) in enumerate(loops):
            last = n == len(loops) - 1
            self.lines.append("    " * depth + f"for {name} in {kind}({f'0, {extent}, {step}' if last and step > 1 else extent}):")
            depth += 1
        if guard:
            self.lines.append("    " * depth + guard)
            depth += 1
        self.lines.append("    " * depth + line)

    # values

    def value(self, readable: list[str], i: str, j: str, depth: int = 2) -> str:
        rng = self.rng
        kind = rng.randrange(12) if depth else 0
        if kind <= 2:
            return self.load(rng.choice(readable), i, j)
        a = self.value(readable, i, j, depth - 1)
        match kind:
            case 3:
                return f"({self.integral(readable, i, j)} {rng.choice(('//', '%'))} {rng.choice((2, 3, 7, 16, '-5'))})"
            case 4:
                return f"({self.integral(readable, i, j)} {rng.choice(('<<', '>>'))} {rng.randrange(0, 5)})"
            case 5:
                return f"where({self.condition(readable, i, j)}, {a}, {self.value(readable, i, j, depth - 1)})"
            case 6:
                return f"{rng.choice(('min', 'max'))}({a}, {self.value(readable, i, j, depth - 1)})"
            case 7:
                return f"{rng.choice((*FLOATS, *INTEGERS[:7]))}({a})"
            case 8:
                return f"({a} * {rng.choice((2, 3, '-1'))})"
            case 9:
                return f"{rng.choice(('abs', 'abs', '-'))}({a})"
        return f"({a} {rng.choice('+-')} {self.value(readable, i, j, depth - 1)})"

    def integral(self, readable: list[str], i: str, j: str) -> str:
        return f"{self.rng.choice(INTEGERS[:7])}({self.load(self.rng.choice(readable), i, j)})"

    def condition(self, readable: list[str], i: str, j: str) -> str:
        rng = self.rng
        op = rng.choice(COMPARISONS)
        plain = f"{rng.choice((i, j))} {op} {rng.randrange(6)}"
        data = f"{self.load(rng.choice(readable), i, j)} {op} {self.load(rng.choice(readable), i, j)}"
        return rng.choice((plain, data, f"{plain} and {data}", f"{data} or {plain}", f"({i} + {j}) % 2 {op} 1"))

    def load(self, name: str, i: str, j: str) -> str:
        rng, m, n = self.rng, self.height, self.columns
        d = rng.randrange(1, 4)
        choices = (
            *(f"{name}[{i}, {j}]",) * 4,
            f"{name}[{i}, {n - 1} - {j}]",
            f"{name}[{m} - 1 - {i}, {j}]",
            f"{name}[{i}, {j} // 2]",
            f"{name}[{i}, ({j} + {d}) % {n}]",
            f"{name}[{i}, 0]",
            f"{name}[0, min({j} + {d}, {n - 1})]",
            f"{name}[{i}, index(u8({rng.choice('abc')}[{i}, {j}])) % {n}]",
        )
        edge = f"where({j} >= {d}, {name}[{i}, {j} - {d}], {name}[{i}, {j}])"
        return rng.choice((*choices, edge))

    def narrowed(self, value: str, target: str) -> str:
        """Reductions of integers take values that their type holds."""
        return f"{self.types[target]}({value})"

    def fresh(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"


def small_array(rng: np.random.Generator, b: Buffer, sizes: dict[str, int], wide: bool) -> np.ndarray:
    """Whole numbers from -2 to 2 (0 to 4); with ``wide`` half of the integers are of any size."""
    shape, t = tuple(int(evaluate(e, sizes)) for e in b.shape), b.dtype
    if t.kind == "bfloat":
        return (rng.integers(-2, 3, shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if t.is_float:
        return rng.integers(-2, 3, shape).astype(t.to_numpy())
    if t.kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    lo, hi = t.range
    if wide:
        every = rng.integers(lo, hi, shape, dtype=t.to_numpy(), endpoint=True)
        return np.where(rng.random(shape) < 0.5, every, every % 5).astype(t.to_numpy())
    return rng.integers(max(lo, -2), 3 if lo else 5, shape).astype(t.to_numpy())
