"""How many cycles a Gemmini program takes: events at the granularity of instructions.

The host and the loop machines issue instructions into the reservation station. There each waits for older instructions of other
controllers whose rows it touches, then for its controller, which works in order. So the times of an instruction follow from those
issued before it, and one pass in the order of issue gives them all.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.counters import Counters
from tilewright.sim.gemmini.expansion import Expansion, Loops
from tilewright.sim.gemmini.isa import Command, Compute, ConfigEx, ConfigLd, ConfigSt, Mvin, Mvout, Preload, Tile
from tilewright.sim.gemmini.loop_conv import convolution
from tilewright.sim.gemmini.loop_ws import matmul
from tilewright.sim.gemmini.memory_timing import Channel, Port, Timing, requests
from tilewright.sim.gemmini.unroller import unroll
from tilewright.util.errors import ExecutionError

LOAD, EXECUTE, STORE = "load", "execute", "store"
#: Cycles that the array takes for a product of few rows.
SHORTEST = 4
#: Why the array stood still between its first cycle and its last product.
CAUSES = ("load", "store", "issue", "bank")


@dataclass(frozen=True, slots=True)
class Event:
    """One instruction: the controller that ran it, the cycles of its issue, start and end, and what its start waited for last."""

    command: Command
    unit: str
    issued: int
    start: int
    end: int
    cause: str


@dataclass(frozen=True, slots=True)
class Run:
    """What a simulation gave: events in the order of issue, the last cycle, and the cycles in which the array was fed."""

    events: tuple[Event, ...]
    cycles: int
    fed: int
    stalls: dict[str, int]
    #: What each ``Counter`` command showed.
    counted: tuple[int, ...] = ()

    def utilisation(self, macs: int, configuration: Configuration) -> float:
        """Share of the array's multiplications that a program of ``macs`` used."""
        return macs / configuration.dim**2 / self.cycles


def simulate(program: Iterable[Command], configuration: Configuration, timing: Timing | None = None) -> Run:
    """Runs the cycle model over a program; ExecutionError for commands it does not know. Data is not computed."""
    return Cycles(configuration, timing or Timing(in_flight=configuration.requests)).run(program)


Rows = tuple[tuple[int, int], ...]


#: A place in the reservation station: until when, rows read and written.
Entry = tuple[int, Rows, Rows]


def _stored(tile: Tile, transposed: int) -> int:
    """Rows of its memory that an operand takes: its extents are those after the transposition."""
    return tile.cols if transposed else tile.rows


def _rows(tile: Tile, count: int) -> Rows:
    """Rows [first, end) of a tile, the accumulator's above the scratchpad's; none for the garbage address."""
    if tile.garbage:
        return ()
    first = tile.row + (isa.ACCUMULATOR if tile.address & isa.ACCUMULATOR else 0)
    return ((first, first + count),)


def _touch(a: Rows, b: Rows) -> bool:
    for x in a:
        for y in b:
            if x[0] < y[1] and y[0] < x[1]:
                return True
    return False


class Cycles:
    """The state of one simulated machine between instructions."""

    def __init__(self, configuration: Configuration, timing: Timing):
        c = configuration
        self.configuration, self.timing = c, timing
        self.loops = Loops(c)
        self.ex, self.st = ConfigEx(), ConfigSt(0)
        self.ld: dict[int, ConfigLd] = {}
        self.entries: dict[str, deque[Entry]] = {u: deque() for u in (LOAD, EXECUTE, STORE)}
        #: Ends of the latest entries, as many as there are places, in order: the first of them to end makes room.
        self.ends = {LOAD: [0] * c.load_entries, EXECUTE: [0] * c.execute_entries, STORE: [0] * c.store_entries}
        self.last = dict.fromkeys(self.entries, 0)
        self.reader = Channel(timing, timing.request)
        self.writer = Channel(timing, timing.write)
        self.ports = [Port() for _ in range(c.spad_banks)]
        #: Ends of the loads and of the stores that may still be under way; their places become free in order.
        self.loads: deque[int] = deque([0] * timing.moves, timing.moves)
        self.stores: deque[int] = deque([0] * timing.moves, timing.moves)
        self.slot = (0, 0)
        self.rides = False
        self.fed = 0
        self.stalls = dict.fromkeys(CAUSES, 0)
        self.events: list[Event] = []
        self.end = 0
        self.counters = Counters()
        self.counted: list[int] = []

    def run(self, program: Iterable[Command]) -> Run:
        """Issues a program; successive loops are unrolled together, as the hardware does with two of them at a time."""
        now = 0
        batch: list[tuple[Expansion, int]] = []
        configured = 0
        for command in program:
            if isinstance(command, isa.LoopWs | isa.LoopConvWs):
                loops = self.loops
                expansion = matmul(loops, command) if isinstance(command, isa.LoopWs) else convolution(loops, command)
                batch.append((expansion, configured + 1))
                configured = 0
            elif isinstance(command, isa.LOOP_REGISTERS):
                self.loops.configure(command)
                configured += 1
            else:
                now, batch = unroll(self, batch, now), []
                if isinstance(command, isa.Fence):
                    now = max(now, self.end)
                now = max(self.issue(command, now), now + self.timing.gap) + 1
        unroll(self, batch, now)
        drain = self.end - self.slot[1]
        return Run(tuple(self.events), self.end, self.fed, {**self.stalls, "drain": drain}, tuple(self.counted))

    def room(self, unit: str, now: int) -> int:
        """The first cycle from ``now`` on with a free entry for ``unit``."""
        return max(now, self.ends[unit][0])

    def issue(self, command: Command, now: int) -> int:
        """Puts a command into the station as soon as there is room; returns that cycle. Configurations act at once."""
        match command:
            case ConfigLd():
                self.ld[command.mvin] = command
            case ConfigEx():
                self.ex = command
            case ConfigSt():
                self.st = command
            case Mvin():
                return self._enter(command, LOAD, now, (), _rows(command.local, self._span(command)))
            case Mvout():
                return self._enter(command, STORE, now, _rows(command.local, self._extent(command)), ())
            case Preload():
                written = _rows(command.c, (command.c.rows - 1) * self.ex.c_stride + 1)
                turned = self.ex.b_transpose and self.ex.dataflow == isa.WEIGHT_STATIONARY
                return self._enter(command, EXECUTE, now, _rows(command.bd, _stored(command.bd, turned)), written)
            case Compute():
                a = _stored(command.a, self.ex.a_transpose)
                turned = self.ex.b_transpose and self.ex.dataflow == isa.OUTPUT_STATIONARY
                reads = _rows(command.a, (a - 1) * self.ex.a_stride + 1) + _rows(command.bd, _stored(command.bd, turned))
                return self._enter(command, EXECUTE, now, reads, ())
            case isa.Counter():
                self._count(command, now)
            case isa.Flush() | isa.Fence():
                pass
            case _:
                raise ExecutionError(f"the cycle model does not run {command}", hint="leave it out of timed programs")
        return now

    def _count(self, x: isa.Counter, now: int) -> None:
        # A command ends when its last word has arrived: the cycle after is the first in which its controller is idle.
        intervals = [(e.unit, e.start, e.end + 1) for e in self.events]
        waiting = {unit: sum(end > now for end, _, _ in entries) for unit, entries in self.entries.items()}
        self.counted.append(self.counters.operate(x, now, intervals, waiting))

    def _span(self, x: Mvin) -> int:
        """Rows from a load's first to its last. Copies for the pixels before lie in rows of loads before, and keep nobody waiting."""
        setting = self._load_setting(x)
        return (-(-x.local.cols // self.configuration.dim) - 1) * setting.block_stride + x.local.rows

    def _load_setting(self, x: Mvin) -> ConfigLd:
        if x.mvin not in self.ld:
            raise ExecutionError(f"{x}: mvin {x.mvin} was never configured", hint=f"issue ConfigLd(stride, mvin={x.mvin}) first")
        return self.ld[x.mvin]

    def _extent(self, x: Mvout) -> int:
        if self.st.pool_stride:
            return self.st.orows * self.st.ocols
        return (-(-x.local.cols // self.configuration.dim) - 1) * self.configuration.dim + x.local.rows

    def _enter(self, command: Command, unit: str, now: int, reads: Rows, writes: Rows) -> int:
        now = self.room(unit, now)
        ready, cause = now + self.timing.station, "issue"
        for other, entries in self.entries.items():
            while entries and entries[0][0] <= now:
                entries.popleft()
            same = other == unit
            if same and unit != LOAD:
                continue
            for end, read, written in entries:
                if end + 2 <= ready:
                    continue
                if _touch(reads, written) or _touch(writes, written) or (not same and _touch(writes, read)):
                    ready, cause = end + 2, other
        ready = max(ready, self.last[unit] + 1)
        self.last[unit] = ready
        if isinstance(command, Mvin):
            start, end = self._load(command, ready)
        elif isinstance(command, Mvout):
            start, end = self._store(command, ready)
        elif isinstance(command, Preload):
            start, end, cause = self._preload(command, ready, cause)
        else:
            assert isinstance(command, Compute)
            start, end, cause = self._compute(command, ready, cause)
        self.entries[unit].append((end, reads, writes))
        ends = self.ends[unit]
        insort(ends, end)
        del ends[0]
        self.events.append(Event(command, unit, now, start, end, cause))
        self.end = max(self.end, end)
        return now

    # Controllers

    def _load(self, x: Mvin, ready: int) -> tuple[int, int]:
        c, setting = self.configuration, self._load_setting(x)
        start = max(ready, self.loads[0], self.reader.issue)
        in_acc = bool(x.local.address & isa.ACCUMULATOR)
        size = c.acc_bytes if in_acc and not setting.shrunk else c.input_bytes
        first = 0
        same = setting.stride == 0 and x.address != 0  # one row for all: it is read once, and repeated on its way
        for row in range((1 if same else x.local.rows) if x.address else 0):
            offset = (x.address + row * setting.stride) % c.max_bytes
            arrives = self.reader.read(start, requests(offset, x.local.cols * size, c.bus_bytes, c.max_bytes))
            first = first or arrives
        written = -(-x.local.cols // c.dim) * x.local.rows * max(setting.repeats, 1)
        end = self.reader.bus if x.address else start + written
        if same:
            end = max(end, first + written)
            self.reader.bus = max(self.reader.bus, end - 1)
        if not in_acc:
            bank = x.local.row * c.spad_banks // c.spad_rows
            end = max(end, self.ports[bank].use(first or start, written))
            if x.address:
                self.reader.bus = max(self.reader.bus, end - 1)
        end += self.timing.arrival
        self.loads.append(max(end, self.loads[-1]))  # zeros come from nowhere, and may be there before what was asked for earlier
        return start, end

    def _store(self, x: Mvout, ready: int) -> tuple[int, int]:
        c, st = self.configuration, self.st
        start = max(ready, self.stores[0], self.writer.issue)
        full = bool(x.local.address & isa.ACCUMULATOR and x.local.address & isa.FULL)
        width = x.local.cols * (c.acc_bytes if full else c.input_bytes)
        if st.pool_stride:
            reads = st.pool_size**2
            rows = [(r * st.pool_out_cols + q) * st.stride for r in range(st.porows) for q in range(st.pocols)]
        else:
            reads = -(-x.local.cols // c.dim)
            rows = [row * st.stride for row in range(x.local.rows)]
        sends = []
        for row in rows:
            beats = requests((x.address + row) % c.max_bytes, width, c.bus_bytes, c.max_bytes)
            gathered = reads + (self.timing.gather if reads > 1 else 0)
            sends += [max(beats[0], gathered), *beats[1:]]
        end = self.writer.write(start, sends)
        self.stores.append(end)
        return start, end

    def _read(self, tile: Tile, rows: int, start: int) -> int:
        """When the array has read so many rows of an operand: their bank's port may be busy with arriving data."""
        if tile.garbage:
            return start
        bank = min(tile.row * self.configuration.spad_banks // self.configuration.spad_rows, len(self.ports) - 1)
        return self.ports[bank].use(start, rows)

    def _occupy(self, ready: int, cause: str, rows: int) -> int:
        """A new slot of the array from ``ready`` on; the cycles it stood still are counted by their cause."""
        start = max(ready, self.slot[1])
        self.stalls[cause] += start - self.slot[1]
        self.slot = start, start + rows
        self.fed += rows
        return start

    def _stretch(self, end: int) -> None:
        if end > self.slot[1]:
            self.stalls["bank"] += end - self.slot[1]
            self.slot = self.slot[0], end

    def _preload(self, x: Preload, ready: int, cause: str) -> tuple[int, int, str]:
        """Weights ride along with the compute before, if they come in time; else they take a slot of their own."""
        ready += self.timing.feed
        keeps = self.ex.dataflow == isa.WEIGHT_STATIONARY and x.bd.garbage
        dim = self.configuration.dim
        if self.rides and ready <= self.slot[0]:
            start = self.slot[0]
            if not keeps and start + dim > self.slot[1]:
                self.fed += start + dim - self.slot[1]
                self.slot = start, start + dim
        else:
            start = self._occupy(ready, cause, 0 if keeps else dim)
        self._stretch(self._read(x.bd, x.bd.rows, start))
        self.rides = False
        end = self.slot[1] if x.c.garbage else self.slot[1] + self.configuration.passage + self.timing.drain
        return start, end, cause

    def _compute(self, x: Compute, ready: int, cause: str) -> tuple[int, int, str]:
        weights = self.ex.dataflow == isa.WEIGHT_STATIONARY
        start = self._occupy(ready + self.timing.feed, cause, max(SHORTEST, x.a.rows) if weights else self.configuration.dim)
        self._stretch(self._read(x.a, x.a.rows, start))
        self._stretch(self._read(x.bd, x.bd.rows, start))
        self.rides = True
        return start, self.slot[1], cause
