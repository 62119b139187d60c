"""The words of a loop form's run: bounds, places and flags of a tile, for its first, its last and the other runs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tilewright.codegen.commands.form_kernels import AFTER, BEFORE, Use
from tilewright.codegen.commands.forms import pitches
from tilewright.codegen.commands.operands import Placed
from tilewright.codegen.commands.program import Branch, Command, Item, Operand, Pointer
from tilewright.codegen.commands.setting import Needed
from tilewright.hw import Instruction, RoCC
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr


def run(use: Use, call: st.Call, place: Callable[[st.Window], Placed]) -> tuple[Item, ...]:
    """What ``call``, a use of a form, issues: the state that its parts need, then its words. ``place`` says where windows are."""
    return _Run(use, call, place).items()


@dataclass(frozen=True, slots=True)
class _Phase:
    """What the words say where a part is active, and when it is (None: always): where this count is 0."""

    values: Mapping[str, Operand]
    count: Expr | None


class _Run:
    def __init__(self, use: Use, call: st.Call, place: Callable[[st.Window], Placed]):
        self.form = use.form
        windows = {b.name: w for b, w in zip(call.kernel.args, call.args, strict=True)}
        sizes = {v.name: e for v, e in zip(call.kernel.sizes, call.sizes, strict=True)}
        counts = (sizes.get(BEFORE), None, sizes.get(AFTER))
        self.needed: list[Item] = []
        self.phases: list[_Phase] = []
        for (part, move), count in zip(use.phases, counts, strict=True):
            values: dict[str, Operand] = {n: ex.idx(v) for n, v in part.fields}
            strides: dict[str, int] = {}
            for n in (n for n in move.windows if n != self.form.sums):
                steps = pitches(windows[n])
                assert steps is not None
                pitch = steps[-2] if len(steps) > 1 else 0
                strides[f"{n}.stride"] = pitch * windows[n].buffer.dtype.nbytes
                values |= {n: place(windows[n]).operand, f"{n}_pitch": ex.idx(pitch)}
                values |= {f"{n}_size{d}": ex.idx(a // b) for d, (a, b) in enumerate(pairwise(steps), 1)}
                values |= {f"{n}_extent{d}": s.extent for d, s in enumerate(windows[n].spans)}
            values |= {f"{axis}_extent": sizes.get(f"{axis}_n", e) for axis, e in move.extents.items() if axis not in use.update[1].extents}
            for name in (f"{o}_{side}{d}" for o, d, _ in part.around for side in ("before", "after")):
                values[name] = sizes[name]
            self.needed += _needed(part.instruction, strides | {f"{n}.bits": v for n, v in move.settings.items()})
            self.phases.append(_Phase(values, count))
        self.always: dict[str, Operand] = {n: ex.idx(v) for n, v in self.form.idle}
        extents = {axis: sizes.get(f"{axis}_n", e) for axis, e in use.update[1].extents.items()}
        self.always |= {f"{axis}_extent": e for axis, e in extents.items()}
        known = {axis: int(e.value) for axis, e in extents.items() if isinstance(e, ex.Const)}
        self.always |= {name: ex.idx(way(known)) for name, way in self.form.ways}
        for axis, size in self.form.block:
            blocks = (extents[axis] + (size - 1)) // size
            self.always |= {f"{axis}_blocks": blocks, f"{axis}_pad": blocks * size - extents[axis]}

    def items(self) -> tuple[Item, ...]:
        return (*self.needed, *(i for w in self.form.words for i in self.word(w, {})))

    def word(self, word: RoCC, decided: Mapping[int, bool]) -> tuple[Item, ...]:
        """One word, or branches that decide which: those of operands that are places in some runs and none in others."""
        asked = dict.fromkeys(str(b.value).removesuffix(".address") for b in (*word.rs1, *word.rs2) if isinstance(b.value, str))
        for n, phase in enumerate(self.phases):
            if phase.count is not None and n not in decided and any(isinstance(phase.values.get(name), Pointer) for name in asked):
                then, orelse = (self.word(word, {**decided, n: here}) for here in (True, False))
                return (Branch(ex.compare("==", phase.count, 0), then, orelse),)
        return (Command(f"{self.form.name}.{word.name}", tuple((name, self.value(name, decided)) for name in asked)),)

    def value(self, name: str, decided: Mapping[int, bool]) -> Operand:
        """What a field holds, in all runs or in those in which ``decided`` phases are active."""
        out = self.always.get(name, ex.idx(0))
        for n, phase in enumerate(self.phases):
            mine = phase.values.get(name, out)
            if phase.count is None or decided.get(n, False) or mine == out:
                out = mine
            elif n not in decided and isinstance(mine, Expr) and isinstance(out, Expr):
                out = ex.where(ex.compare("==", phase.count, 0), mine, out)
        return out


def _needed(instruction: Instruction, known: Mapping[str, int]) -> list[Needed]:
    """The state that a part needs, where its values are numbers or ``known``."""
    out = []
    for need in instruction.needs:
        values = [(name, known.get(v) if isinstance(v, str) else v) for name, v in need.values]
        out.append(Needed(need.state, tuple((name, ex.idx(v)) for name, v in values if v is not None)))
    return out
