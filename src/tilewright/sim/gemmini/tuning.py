"""The best schedule of a kernel for a Gemmini, by the cycle model: it measures what the analytical estimate ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from tilewright.codegen.commands import Program, generate
from tilewright.cost.explicit import counted
from tilewright.cost.tape import Tape
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.cycles import Run
from tilewright.sim.gemmini.generated import timed
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.sim.gemmini.reordering import reordered
from tilewright.space import Space
from tilewright.util.errors import CodegenError, SpaceError

#: Points that the estimate ranks before any is measured.
SAMPLED = 2000
#: All points of a space that has no more are ranked as runs of forms: few of them are such.
ALL = 20_000
#: Words of a long program that tell how fast it is; about this many of the best of either kind are then run whole.
BEGINNING, FINALISTS = 12_000, 3
#: Of a program of loop forms, whose words stand for many commands each, so many words tell how many that is.
WORDS = 64
#: Points that may turn out to be no runs of forms, for each that is wanted; draws of neighbours that may come to nothing.
TRIES = 8
#: The share of its estimate that a point's loads count more.
ALIKE = 1e-3
#: No estimate is wrong by this much: what takes so much longer than a neighbour need not be measured.
FAR = 4.0
#: Long programs are run whole only where their paces are within this of the best that was.
CLOSE = 1.03


@dataclass(frozen=True, slots=True)
class Measured:
    """A program, its cycles on the model, what its schedule is (for people), and how many schedules, and orders of the best, were tried."""

    program: Program
    cycles: int
    schedule: str
    measured: int
    orders: int = 0


@dataclass(frozen=True, slots=True)
class _Candidate:
    """``pace``: cycles for each product, over the beginning of the program; ``cycles`` of the whole where that was run."""

    point: np.ndarray
    program: Program
    pace: float
    cycles: int | None
    forms: tuple[str, ...] = ()


def tuned(
    kernel: Kernel,
    machine: Machine,
    *,
    measured: int = 24,
    orders: int = 0,
    timing: Timing | None = None,
    seed: int = 0,
    forms: Sequence[str] = (),
    starts: Sequence[Mapping[str, int]] = (),
    constants: Iterable[str] = (),
) -> Measured:
    """The fastest of ``measured`` schedules of the kernel's space: first those with the best estimates, of each structure in turn, then
    neighbours of the best so far. Long programs are compared by their beginnings, the best of them by the whole.

    With ``orders`` the commands of the best are then put in better orders, where they are few: so many are tried (:mod:`.reordering`),
    half of them on what was best after the others. With ``forms`` each schedule is measured as runs of these loop forms too, where
    its tiles are what they do, then half as many neighbours of the best such runs, a quarter as many that should be best as runs, as many
    that load least, and the fastest counts. Arguments among ``constants`` are known ahead: their layout is free. The same ``seed`` gives
    the same result. SpaceError when no point can be generated.

    ``starts`` are values of knobs that are measured early, besides the others, such as a library's tiles: the valid point nearest to
    each, in every structure that loads all operands for each block.
    """
    space = Space(kernel, machine, constants=constants)
    rng = np.random.default_rng(seed)
    search = _Search(space, timing, forms)
    points = np.unique(space.sample(SAMPLED, rng), axis=0)
    for point in _by_structure(space, points, space.estimate(points))[: -(-measured // 2)]:
        search.measure(point)
    besides = sum(search.measure(point) for point in _nearest(space, starts))
    search.around(search.found, measured + besides, rng)
    if search.others:
        search.explicit = False
        search.around(search.others, measured + measured // 2 + besides, rng)
    if forms:
        search.explicit, none = False, not search.others
        points = space.enumerate(ALL) if space.size <= ALL else points
        points = points[_alone(space, points)]
        # A form may take fewer cycles for its products than commands do: then loads decide.
        for costs in (space.estimate(points), _loads(space, points)):
            search.runs(_by_structure(space, points, costs), -(-measured // 4))
        search.around(search.others, len(search.seen) + (measured // 2 if none else 0), rng)
    if not search.found and not search.others:
        raise SpaceError(f"{kernel.name}: none of {len(search.seen)} schedules has commands on {machine.name}: {search.problem}")
    finalists = search.finalists()
    orderings = _Orders([(c.cycles or 0, c.program) for c in finalists], machine, timing, seed)
    orderings.search([n for n, c in enumerate(finalists) if not c.forms], orders)
    best = min(range(len(finalists)), key=lambda n: orderings.programs[n][0])
    cycles, program = orderings.programs[best]
    by = f"; by {', '.join(finalists[best].forms)}" if finalists[best].forms else ""
    return Measured(program, cycles, space.describe(finalists[best].point) + by, len(search.seen), orderings.tried)


def _nearest(space: Space, starts: Sequence[Mapping[str, int]]) -> list[np.ndarray]:
    """The points nearest to values of knobs, in the structures in which nothing stays from block to block; and the nearest of no larger
    values, as tiles that fill a memory cannot grow. The best few of them by the estimate.
    """
    found = [point for knobs in starts for s in space.sketches if not s.extras for point in _near(space, s.name, knobs)]
    if not found:
        return []
    points = np.unique(np.stack(found), axis=0)
    return list(points[np.argsort(space.estimate(points), kind="stable")[: 2 * FINALISTS]])


def _near(space: Space, sketch: str, knobs: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The valid point nearest to values of knobs, and one of values of at most those where the space has such."""
    nearest = below = space.decode({"sketch": sketch, "knobs": knobs})
    asked = dict(knobs)
    while over := [k for k, n in space.encode(below)["knobs"].items() if n > knobs.get(k, n) and asked[k] > 1]:
        asked |= {k: asked[k] - 1 for k in over}
        below = space.decode({"sketch": sketch, "knobs": asked})
    return nearest, below


def _by_structure(space: Space, points: np.ndarray, costs: np.ndarray) -> list[np.ndarray]:
    """Points by their costs, the best of each structure first, then the second best of each, and so on."""
    order = []
    for _, rows in space.groups(points):
        ranked = np.asarray(rows)[np.argsort(costs[rows], kind="stable")]
        order += [(place, costs[row], row) for place, row in enumerate(ranked)]
    return [points[row] for _, _, row in sorted(order)]


def _alone(space: Space, points: np.ndarray) -> np.ndarray:
    """Points that load all operands for each block, and whose memories have room for as many blocks as they have buffers: bool [n].

    Runs of forms do such blocks, one being loaded while another is worked on.
    """
    out = np.zeros(len(points), bool)
    for s, rows in space.groups(points):
        sketch, env = space.sketches[s], space.environment(s, points[rows])
        held = [(space.machine.memory(name), np.asarray(ex.evaluate(nbytes, env))) for name, nbytes in sketch.held]
        if held and not sketch.extras:
            out[rows] = np.all(np.broadcast_arrays(*(m.bytes is None or nbytes * m.buffers <= m.bytes for m, nbytes in held)), axis=0)
    return out


def _loads(space: Space, points: np.ndarray) -> np.ndarray:
    """Cycles of the loads of each point by the estimate, a little of which tells apart those that load alike: float64 [n]."""
    out = space.estimate(points) * space.machine.clock_hz * ALIKE
    for s, rows in space.groups(points):
        found = Tape([counted(space.sketches[s].program, space.machine).load])(space.environment(s, points[rows]))
        out[rows] += np.asarray(found[0])
    return out


class _Search:
    """``found`` leads the search: explicit programs where there are any; ``others`` are the same schedules by forms."""

    def __init__(self, space: Space, timing: Timing | None, forms: Sequence[str]):
        self.space, self.timing, self.forms = space, timing, tuple(forms)
        self.explicit = True
        self.seen: set[bytes] = set()
        self.found: list[_Candidate] = []
        self.others: list[_Candidate] = []
        self.problem = ""

    def around(self, leading: list[_Candidate], measured: int, rng: np.random.Generator) -> None:
        """Measures neighbours of the best of ``leading``, which grows, until so many points were ``measured`` or no new ones come.

        Those whose estimates are far from that of the point that they are near are left out.
        """
        idle = 0
        while len(self.seen) < measured and leading and idle < TRIES + measured:
            leaders = sorted(leading, key=lambda c: c.pace)[:FINALISTS]
            pair = np.repeat(leaders[len(self.seen) % len(leaders)].point[None], 2, axis=0)
            pair[1] = self.space.neighbours(pair[:1], rng)[0]
            here, there = self.space.estimate(pair)
            idle = 0 if there <= FAR * here and self.measure(pair[1]) else idle + 1

    def runs(self, ranked: Sequence[np.ndarray], most: int) -> None:
        """Measures the first of ``ranked`` points until so many of them were runs of forms."""
        before = len(self.others)
        for point in ranked[: TRIES * most]:
            if len(self.others) < before + most:
                self.measure(point)

    def measure(self, point: np.ndarray) -> bool:
        """Measures a point; False when it was measured before."""
        key = point.tobytes()
        if key in self.seen:
            return False
        self.seen.add(key)
        kernel = self.space.schedule(point).kernel
        explicit = self.candidate(point, kernel, ()) if self.explicit else None
        formed = self.candidate(point, kernel, self.forms) if self.forms else None
        if explicit is not None:
            self.found.append(explicit)
        if formed is not None:
            # Where no schedule has commands, runs of forms lead from the start.
            (self.others if explicit is not None or not self.explicit else self.found).append(formed)
        return True

    def finalists(self) -> list[_Candidate]:
        """The best programs, run whole: short ones, then by their paces as long as those are close to the best of all that was run.

        The beginning of a program may promise more than the rest holds; then others get their turn.
        """
        out = [c for c in sorted(self.found, key=lambda c: c.pace)[:FINALISTS] if c.cycles is not None]
        best = min((c.pace for c in out), default=inf)
        for c in sorted((c for c in (*self.found, *self.others) if c.cycles is None), key=lambda c: c.pace)[: 2 * FINALISTS]:
            if c.pace > CLOSE * best:
                break
            run = timed(c.program, self.space.machine, self.timing)
            out.append(replace(c, cycles=run.cycles, pace=run.cycles / max(1, _products(run))))
            best = min(best, out[-1].pace)
        return out

    def candidate(self, point: np.ndarray, kernel: Kernel, forms: tuple[str, ...]) -> _Candidate | None:
        """The program of a schedule and its pace; None when it has none, or its tiles are not what the ``forms`` do."""
        machine = self.space.machine
        try:
            program = generate(kernel, machine, forms=forms)
        except CodegenError as error:
            self.problem = error.message
            return None
        run = timed(program, machine, self.timing, WORDS if forms else BEGINNING)
        if forms and len(run.events) < BEGINNING // 2:
            run = timed(program, machine, self.timing, WORDS * BEGINNING // (2 * max(1, len(run.events))))
        whole = len(run.events) < BEGINNING // 2 and not forms
        return _Candidate(point, program, run.cycles / max(1, _products(run)), run.cycles if whole else None, forms)


@dataclass(slots=True)
class _Orders:
    """Puts the commands of ``programs`` (cycles and program) in better orders; ``tried`` counts the orders that were measured."""

    programs: list[tuple[int, Program]]
    machine: Machine
    timing: Timing | None
    seed: int
    tried: int = 0

    def search(self, places: Sequence[int], orders: int) -> None:
        """Tries ``orders``: half of them on the programs at all ``places``, the others on what is then best.

        Schedules may differ and give the same commands: those count once.
        """
        bodies = {n: self.programs[n][1].body for n in places}
        distinct = [n for k, n in enumerate(places) if all(bodies[n] != bodies[m] for m in places[:k])]
        for n in distinct:
            self._improve(n, orders // 2 // len(distinct))
        if places:
            self._improve(min(places, key=lambda n: self.programs[n][0]), orders - self.tried)

    def _improve(self, n: int, orders: int) -> None:
        better = reordered(self.programs[n][1], self.machine, trials=orders, timing=self.timing, seed=self.seed) if orders >= 2 else None
        if better is not None:
            self.tried += better.tried
            self.programs[n] = min(self.programs[n], (better.cycles, better.program), key=lambda found: found[0])


def _products(run: Run) -> int:
    """Multiplications that a run did; what a compute makes has the columns that the preload before it says."""
    total = columns = 0
    for command in (e.command for e in run.events):
        match command:
            case isa.Preload():
                columns = command.c.cols
            case isa.Compute():
                total += command.a.rows * command.a.cols * columns
    return total
