"""One random application of each schedule primitive, with arguments that it may well refuse."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

from tilewright.ir import expr as ex
from tilewright.ir.stmt import Alloc, Block, For, Store, all_buffers, allocated, loops, own_exprs, walk
from tilewright.mapping import operator_of
from tilewright.schedule import Schedule
from tilewright.util.errors import MappingError, ScheduleError


class _Draw:
    """Arguments for a primitive, drawn from the loops and buffers of the kernel as it is."""

    def __init__(self, rng: Random, sch: Schedule):
        self.rng, self.sch, self.kernel = rng, sch, sch.kernel

    @property
    def loop(self) -> str:
        names = [f.name for f in loops(self.kernel)]
        if not names:
            raise ScheduleError("no loops")
        return self.rng.choice(names)

    @property
    def chain(self) -> list[str]:
        """Loops of one path from somewhere down to a random loop."""
        target = self.loop
        path = [f.name for f in loops(self.kernel) if any(isinstance(s, For) and s.name == target for s in walk(f))]
        return path[self.rng.randrange(len(path)) :]

    @property
    def pair(self) -> list[str]:
        chain = self.chain
        return chain[:2] if len(chain) > 1 else [chain[0], chain[0]]

    @property
    def siblings(self) -> tuple[str, str]:
        pairs = []
        for s in walk(self.kernel.body):
            if isinstance(s, Block):
                adjacent = [t for t in s.stmts if not isinstance(t, Alloc)]
                pairs += [(a.name, b.name) for a, b in pairwise(adjacent) if isinstance(a, For) and isinstance(b, For)]
        return self.rng.choice(pairs or [(self.loop, self.loop)])

    @property
    def buffer(self) -> str:
        return self.rng.choice(all_buffers(self.kernel)).name

    @property
    def local(self) -> str:
        """A buffer that the kernel allocates, if there is one."""
        return self.rng.choice(allocated(self.kernel) or all_buffers(self.kernel)).name

    @property
    def home(self) -> str:
        """``loop`` mostly, or None for the whole kernel."""
        return self.rng.choice((self.loop, self.loop, self.loop, None))

    @property
    def instruction(self) -> str:
        return self.rng.choice(self.sch.machine.instructions).name

    def layout(self) -> None:
        b = self.rng.choice(all_buffers(self.kernel))
        self.sch.layout(b.name, self.rng.choice({1: ("0", "0/2 0"), 2: ("1 0", "1/4 0 1")}.get(b.rank, (None,))))

    def permute(self) -> None:
        b = self.rng.choice(allocated(self.kernel) or all_buffers(self.kernel))
        self.sch.permute(b.name, self.rng.sample(range(b.rank), b.rank))

    def outline(self) -> None:
        """A random part of what a random store stores."""
        stores = [(s, f) for f in loops(self.kernel) for s in walk(f) if isinstance(s, Store)]
        if not stores:
            raise ScheduleError("no stores")
        s, f = self.rng.choice(stores)
        part = self.rng.choice([n for e in own_exprs(s) for n in ex.walk(e)])
        self.sch.outline(f.name, str(part), self.rng.choice((str(part.dtype), "i32", "f64")))

    def recenter(self) -> None:
        names = [b.name for b in all_buffers(self.kernel) if b.dtype.bits == 8] or [self.buffer]
        self.sch.recenter(self.loop, self.rng.choice(names))

    def map_onto(self) -> None:
        """A mapping of each axis of an instruction to one random iteration, or to none."""
        buffer = self.buffer
        try:
            iterations = [i.name for i in operator_of(self.kernel, at=buffer).iterations]
        except MappingError as error:
            raise ScheduleError(error.message) from error
        instruction = self.rng.choice(self.sch.machine.instructions)
        self.rng.shuffle(iterations)
        mapping = "  ".join(f"{a.name}<-{i}" for a, i in zip(instruction.axes, [*iterations, *"111"], strict=False))
        self.sch.map_onto(buffer, instruction.name, mapping)


#: What a person, or a search, might ask of each primitive. Legality is not looked at: it is the primitives that have to.
STEPS: dict[str, Callable[[_Draw], object]] = {
    "accumulate": lambda d: d.sch.accumulate(d.loop),
    "bind": lambda d: d.sch.bind(d.loop, "core"),
    "cache_read": lambda d: d.sch.cache_read(d.buffer, d.home, "l1", padded=d.rng.random() < 0.2),
    "cache_write": lambda d: d.sch.cache_write(d.buffer, d.home, "l1"),
    "compute_at": lambda d: d.sch.compute_at(d.buffer, d.rng.choice((d.loop, d.loop, [d.loop, d.loop])), d.rng.random() < 0.7),
    "expand": lambda d: d.sch.expand(d.local, d.loop),
    "factor_out": lambda d: d.sch.factor_out(d.local),
    "fission": lambda d: d.sch.fission(d.loop, d.rng.randrange(1, 3)),
    "fuse": lambda d: d.sch.fuse(*d.pair),
    "hoist": lambda d: d.sch.hoist(d.buffer, d.loop),
    "inline": lambda d: d.sch.inline(d.local),
    "layout": _Draw.layout,
    "localize": lambda d: d.sch.localize(d.local, d.loop),
    "map_onto": _Draw.map_onto,
    "merge": lambda d: d.sch.merge(*d.siblings),
    "online": lambda d: d.sch.online(d.loop, d.rng.randrange(1, 5)),
    "outline": _Draw.outline,
    "overlay": lambda d: d.sch.overlay(d.loop),
    "parallel": lambda d: d.sch.parallel(d.loop),
    "partition": lambda d: d.sch.partition(d.loop),
    "peel": lambda d: d.sch.peel(d.loop, d.rng.randrange(1, 3), where=d.rng.choice(("first", "last"))),
    "permute": _Draw.permute,
    "recenter": _Draw.recenter,
    "reorder": lambda d: (lambda some: d.sch.reorder(*d.rng.sample(some, len(some))))(d.chain[: d.rng.choice((2, 2, 3, 4))]),
    "rfactor": lambda d: d.sch.rfactor(d.loop),
    "seed": lambda d: d.sch.seed(d.local),
    "set_memory": lambda d: d.sch.set_memory(d.buffer, d.rng.choice(("dram", "l2", "l1", "reg"))),
    "simplify": lambda d: d.sch.simplify(d.rng.random() < 0.7, tighten=d.rng.random() < 0.5),
    "skew": lambda d: d.sch.skew(*d.pair, d.rng.choice((1, 1, 2, -1))),
    "split": lambda d: d.sch.split(
        d.loop, d.rng.randrange(1, 5), *d.rng.choice((("exact",), ("guard",), ("peel",), ("clip",), ("guard", True)))
    ),
    "split_sum": lambda d: d.sch.split_sum(d.loop),
    "tensorize": lambda d: d.sch.tensorize(d.loop, d.instruction),
    "tile": lambda d: (lambda some: d.sch.tile(some, [d.rng.randrange(2, 4) for _ in some], "guard", d.rng.random() < 0.3))(d.chain[:2]),
    "trim": lambda d: d.sch.trim(),
    "unroll": lambda d: d.sch.unroll(d.loop, d.rng.choice((None, 2, 3))),
    "vectorize": lambda d: d.sch.vectorize(d.loop, d.rng.choice((None, 2, 4))),
}


def random_step(rng: Random, sch: Schedule, kinds: tuple[str, ...]) -> None:
    """Ask for one random primitive of ``kinds``; raises ScheduleError when it refuses. ``sch`` needs a machine for some."""
    STEPS[rng.choice(kinds)](_Draw(rng, sch))
