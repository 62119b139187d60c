"""Random kernels of the forms that primitives look for: sums of products, softmax, masks, padding, buffers of one iteration."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.schedule.programs import kernel_of

from tilewright.ir.stmt import Kernel


class _Text:
    """The lines of one kernel. ``loop`` opens a loop and gives its name; what follows stands in it until ``close``."""

    def __init__(self, rng: Random):
        self.rng, self.lines, self.depth, self.names = rng, [], 1, 0

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def loop(self, extent: object, lo: int = 0) -> str:
        self.names += 1
        self.add(f"for v{self.names} in range({f'{lo}, ' if lo else ''}{extent}):")
        self.depth += 1
        return f"v{self.names}"

    def under(self, condition: str) -> None:
        self.add(f"if {condition}:")
        self.depth += 1

    def close(self, count: int) -> None:
        self.depth -= count

    def nest(self, extents: dict[str, int], line: str, shuffled: bool = False) -> None:
        """``line`` for all values of the names in it, which are letters in braces."""
        order = list(extents)
        if shuffled:
            self.rng.shuffle(order)
        at = {name: self.loop(extents[name]) for name in order}
        self.add(line.format(**at))
        self.close(len(order))

    def kernel(self, arguments: str) -> Kernel:
        return kernel_of(f"def pattern({arguments}):\n" + "\n".join(self.lines))


def product(rng: Random) -> Kernel:
    """Sums of products, of a local buffer or an argument, then something of the sums."""
    t, pick = _Text(rng), rng.choice
    kind = pick(("f64", "i32", "i8"))
    a, b, c = {"f64": ("f64",) * 3, "i32": ("i32",) * 3, "i8": (pick(("i8", "u8")), pick(("i8", "u8")), "i32")}[kind]
    m, n, k = pick((1, 3, 4)), pick((2, 4, 5)), pick((1, 3, 6))
    sizes = {"i": m, "j": n, "k": k}
    zero = "0.0" if kind == "f64" else "0"
    local = rng.random() < 0.7
    s = "s" if local else "y"
    if local:
        t.add(f"s = alloc({c}[{m}, {n}])")
    if local or rng.random() < 0.7:
        t.nest({"i": m, "j": n}, f"{s}[{{i}}, {{j}}] = " + pick((zero, zero, zero, "other[{i}, {j}]")), shuffled=rng.random() < 0.2)
    operands = {
        "f64": (
            "a[{i}, {k}] * b[{k}, {j}]",
            "a[{i}, {k}] * b[{k}, {j}] * bias[{j}]",
            "a[{i}, {k}] / other[{i}, {j}]",
            "a[{i}, {k}] * row[{i}]",
        ),
        "i32": ("i32(a[{i}, {k}] * b[{k}, {j}])", "i32(a[{i}, {k}] + b[{k}, {j}])"),
        "i8": ("i32(a[{i}, {k}]) * i32(b[{k}, {j}])", "a[{i}, {k}] * b[{k}, {j}]", "i32(b[{k}, {j}]) * i32(a[{i}, {k}])"),
    }[kind]
    t.nest(sizes, f"{s}[{{i}}, {{j}}] += {pick(operands)}", shuffled=rng.random() < 0.5)
    if rng.random() < 0.15:
        t.nest({"i": n}, f"bias[{{i}}] = {'2.5' if kind == 'f64' else '2'}")
    if local:
        plain = ("s[{i}, {j}]", "s[{i}, {j}] + bias[{j}]", "s[{i}, {j}] + other[{i}, {j}]", "s[{i}, {j}] + other[{i}, {j}] + bias[{j}]")
        value = pick((*plain, *plain[1:], "s[{i}, {j}] * row[{i}]", "s[{i}, {j}] - bias[{j}]", "y[{i}, {j}] + s[{i}, {j}]"))
        value = f"{c}({value})" if kind != "f64" else value
        t.nest({"i": m, "j": n}, f"y[{{i}}, {{j}}] = {pick((value, f'max({value}, {zero})', f'{value} * {value}'))}")
    arguments = f"a: {a}[{m}, {k}], b: {b}[{k}, {n}], bias: {c}[{n}], row: {c}[{m}], other: {c}[{m}, {n}], y: {c}[{m}, {n}]"
    return t.kernel(arguments)


def padded(rng: Random) -> Kernel:
    """A copy with a border, of which sums or maxima of windows are taken."""
    t, pick = _Text(rng), rng.choice
    n, taps, before, fill = pick((3, 5, 8)), pick((1, 2, 3)), pick((0, 1, 2)), pick(("0", "0", "7"))
    wide = n + before + pick((0, 1, 2))
    windows = max(wide - taps + 1, 1)
    local = rng.random() < 0.7
    if local:
        t.add(f"p = alloc(i32[2, {wide}])")
    inside = pick(
        (f"{{j}} >= {before} and {{j}} < {n + before}", f"{{j}} - {before} >= 0 and {{j}} < {n + before} and {{i}} >= {pick((0, 1))}")
    )
    t.nest({"i": 2, "j": wide}, f"p[{{i}}, {{j}}] = where({inside}, x[{{i}}, {{j}} - {before}], {fill})")
    start, op = pick((("0", "+="), ("0", "+="), ("-9", "max")))
    at = f"y[{{i}}, {pick(('{q}', '{q}', f'{windows - 1} - {{q}}'))}]"
    t.nest({"i": 2, "q": windows}, f"{at} = {start}")
    term = pick(("p[{i}, {q} + {r}]", "p[{i}, {q} + {r}] * i32(w[{r}])"))
    sizes = {"i": 2, "q": windows, "r": min(taps, wide)}
    t.nest(sizes, f"{at} += i32({term})" if op == "+=" else f"{at} = max({at}, i32({term}))", shuffled=rng.random() < 0.4)
    border = f", p: i32[2, {wide}]" if not local else ""
    return t.kernel(f"x: i32[2, {n}], w: i8[{taps}]{border}, y: i32[2, {windows}]")


def attention(rng: Random) -> Kernel:
    """Weighted sums over a softmax of rows, in blocks of rows or not, masked or not."""
    t, pick = _Text(rng), rng.choice
    blocks, rows, keys, width = pick((1, 2, 3)), pick((1, 2)), pick((1, 4, 7)), pick((1, 2))
    blocked = rng.random() < 0.6
    if blocked:
        block = t.loop(blocks)
    else:
        blocks = 1
    row = (lambda i: f"{block} * {rows} + {{{i}}}") if blocked else (lambda i: f"{{{i}}}")
    seen = pick((None, f"{{j}} <= {row('i')}", f"{{j}} // 2 <= ({row('i')}) // 2", f"{{j}} * 2 < {row('i')} + 3"))

    def masked(value: str, other: str) -> str:
        return f"where({seen}, {value}, {other})" if seen else value

    t.add(f"top = alloc(f64[{rows}])")
    t.nest({"i": rows}, "top[{i}] = -inf")
    score = masked(f"x[{row('i')}, {{j}}]", "-inf")
    t.nest({"i": rows, "j": keys}, f"top[{{i}}] = max(top[{{i}}], {score})")
    t.add(f"p = alloc(f64[{rows}, {keys}])")
    t.nest({"i": rows, "j": keys}, f"p[{{i}}, {{j}}] = exp({score} - top[{{i}}])")
    t.add(f"s = alloc(f64[{rows}])")
    t.nest({"i": rows}, "s[{i}] = 0.0")
    t.nest({"i": rows, "j": keys}, "s[{i}] += p[{i}, {j}]")
    t.add(f"o = alloc(f64[{rows}, {width}])")
    t.nest({"i": rows, "e": width}, "o[{i}, {e}] = 0.0")
    early = rng.random() < 0.5
    term = f"p[{{i}}, {{j}}] * {masked('v[{j}, {e}]', '0.0')}" + (" / s[{i}]" if early else "")
    t.nest({"i": rows, "e": width, "j": keys}, f"o[{{i}}, {{e}}] += {term}", shuffled=rng.random() < 0.3)
    t.nest({"i": rows, "e": width}, f"y[{row('i')}, {{e}}] = o[{{i}}, {{e}}]" + ("" if early else " / s[{i}]"))
    return t.kernel(f"x: f64[{blocks * rows}, {keys}], v: f64[{keys}, {width}], y: f64[{blocks * rows}, {width}]")


def private(rng: Random) -> Kernel:
    """Buffers that iterations fill and read: declared in a loop, or around it with a place for each iteration."""
    t, pick = _Text(rng), rng.choice
    n, m = pick((2, 3, 5)), pick((2, 4, 6))
    inside = rng.random() < 0.5
    place = (lambda i, j: f"t[{j}]") if inside else (lambda i, j: f"t[{i}, {j}]")
    if not inside:
        t.add(f"t = alloc(i32[{n}, {m}])")
    i = t.loop(n)
    if inside:
        t.add(f"t = alloc(i32[{m}])")
    t.nest(
        {"j": m},
        f"{place(i, '{j}')} = " + pick((f"x[{i}, {{j}}]", f"i32(x[{i}, {{j}}] + w[{{j}}])", f"i32(x[{i}, {m - 1} - {{j}}] * {{j}})")),
    )
    if rng.random() < 0.4:
        t.nest({"j": m, "k": 3}, f"{place(i, '{j}')} += i32(x[{i}, {{j}}] + {{k}})", shuffled=rng.random() < 0.5)
    if not inside and rng.random() < 0.6:
        t.close(1)
        i = t.loop(n)
    other = pick((i, i, f"{n - 1} - {i}")) if not inside and t.depth == 2 and t.lines[-1].startswith("    for") else i
    read = pick((place(other, "{j}"), f"i32({place(other, '{j}')} + {place(other, f'{m - 1} - {{j}}')})"))
    t.nest({"j": m}, f"y[{i}, {{j}}] {pick(('=', '=', '+='))} {read}")
    t.close(1)
    return t.kernel(f"x: i32[{n}, {m}], w: i32[{m}], y: i32[{n}, {m}]")


class _Masks:
    """Local buffers that are filled where conditions on indices hold, and summed: many iterations change nothing."""

    def __init__(self, rng: Random):
        self.t, self.rng = _Text(rng), rng

    def part(self, v: str) -> str:
        c = self.rng.randint
        return self.rng.choice((v, f"{v} * {c(1, 3)}", f"{v} // {c(2, 4)}", f"({v} + {c(0, 5)}) // 3", f"{v} % 3", f"min({v}, {c(1, 6)})"))

    def sum(self, around: list[str]) -> str:
        parts = [self.part(v) for v in self.rng.sample(around, min(len(around), self.rng.randint(1, 2)))]
        return f"{self.rng.choice((' + ', ' - ')).join(parts)} + {self.rng.randint(0, 4)}"

    def condition(self, around: list[str]) -> str:
        first = (
            f"{self.sum(around)} {self.rng.choice(['<', '<=', '>', '>='])} {self.rng.choice((self.sum(around), self.rng.randint(0, 10)))}"
        )
        if self.rng.random() < 0.8:
            return first
        return f"({first}) {self.rng.choice(('and', 'or'))} ({self.sum(around)} {self.rng.choice(['<', '>='])} {self.rng.randint(0, 9)})"

    def bound(self, around: list[str]) -> str:
        if self.rng.random() < 0.6 or not around:
            return str(self.rng.choice((8, 8, 5)))
        v = self.rng.choice(around)
        return self.rng.choice((f"min(8, {v} + {self.rng.randint(0, 3)})", f"max(0, 8 - {v})"))

    def index(self, v: str) -> str:
        return self.rng.choice((v, v, f"{v} + {self.rng.randint(0, 4)}", f"{v} * 2", f"7 - {v}"))

    def declare(self) -> None:
        t, pick = self.t, self.rng.choice
        t.add("p = alloc(f64[20, 8])")
        t.add("q = alloc(f64[20])")
        if self.rng.random() < 0.9:
            t.nest({"a": 20}, f"q[{{a}}] = {pick(('0.0', '0.0', '1.0'))}")
            t.nest({"a": 20, "b": 8}, f"p[{{a}}, {{b}}] = {pick(('0.0', '0.0', '2.0'))}")

    def fill(self, around: list[str]) -> None:
        """Of ``p`` or of ``q``."""
        t, pick = self.t, self.rng.choice
        a = t.loop(self.bound(around))
        at = f"q[{self.index(a)}]"
        if self.rng.random() < 0.3:
            c = self.condition([*around, a])
            other = pick(("0.0", "0.0", "1.0"))
            t.add(f"{at} = " + pick((f"where({c}, x[{a}, 0], {other})", f"x[1, {a}]", f"where({c}, p[{a}, 3], 0.0)")))
            t.close(1)
            return
        b = t.loop(self.bound([*around, a]))
        both, outer = self.condition([*around, a, b]), self.condition([*around, a])
        if self.rng.random() < 0.25:
            t.add(f"{at} += where({both}, p[{self.index(a)}, {b}], 0.0)")
        else:
            values = (
                f"where({both}, x[{a}, {b}], 0.0)",
                f"where({outer}, x[{a}, {b}], 0.0)",
                f"x[{a}, {b}]",
                f"where({both}, q[{a}], 0.0)",
            )
            t.add(f"p[{self.index(a)}, {pick((b, a))}] = {pick(values)}")
        t.close(2)

    def use(self, around: list[str]) -> None:
        t, pick = self.t, self.rng.choice
        a = t.loop(self.bound(around))
        b = t.loop(self.bound([*around, a]))
        both, inner = self.condition([*around, a, b]), self.condition([*around, b])
        masked = (f"where({both}, p[{self.index(a)}, {b}], 0.0)", f"where({inner}, q[{self.index(a)}], 0.0)")
        values = (*masked, f"p[{self.index(a)}, {b}] * q[{self.index(b)}]", f"p[{self.index(b)}, {a}]", f"q[{self.index(b)}]")
        t.add(f"y[{pick([a, b, *around[:1]])}] += {pick(values)}")
        t.close(2)

    def build(self) -> Kernel:
        t, pick = self.t, self.rng.choice
        home, around = pick((0, 1, 2)), list[str]()
        for depth in range(3):
            if depth == home:
                self.declare()
            if depth < 2:
                around.append(t.loop(pick((3, 4, 8))))
        for _ in range(self.rng.randint(2, 5)):
            guarded = self.rng.random() < 0.12
            if guarded:
                t.under(self.condition(around))
            pick((self.fill, self.use))(around)
            if guarded:
                t.close(1)
        return t.kernel("x: f64[8, 8], y: f64[8]")


def masked(rng: Random) -> Kernel:
    """May read outside of its arrays, or what nobody has stored: then it has no meaning."""
    return _Masks(rng).build()


#: Each form with the primitives that look for it.
FORMS: dict[Callable[[Random], Kernel], tuple[str, ...]] = {
    product: ("recenter", "seed", "accumulate", "tensorize", "map_onto", "split_sum", "outline", "factor_out", "rfactor"),
    padded: ("overlay", "trim", "split_sum", "outline", "inline", "compute_at"),
    attention: ("online", "factor_out", "trim", "partition", "compute_at"),
    private: ("expand", "localize", "permute", "fission", "hoist", "inline", "compute_at"),
    masked: ("trim", "partition", "split", "unroll"),
}
