"""The normalisation unit on the way out of the accumulator: integer layer norm, softmax and GELU (the polynomials of I-BERT).

A store may carry a command in its local address. Then it writes nothing, but adds a row to statistics, of which there are a few sets,
and finishes them with the last block of columns. A store without a command writes what the activation makes of the sums with the set
that ConfigNorm chose. Everything wraps at 32 bits, quotients and roots lose their fraction, reciprocals are f32: as the public
hardware does it. What that leaves open is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.arithmetic import scaled
from tilewright.sim.gemmini.isa import ConfigNorm, ConfigSt
from tilewright.util.errors import ExecutionError

Ints = NDArray[np.int32]
#: What finishes statistics, and what the blocks of columns before the last do instead.
UNFINISHED = {isa.MEAN: isa.SUM, isa.INV_STDDEV: isa.VARIANCE, isa.INV_SUM_EXP: isa.SUM_EXP}
_LEAST = -(1 << 31)
_COUNTED = (1 << 16) - 1


@dataclass(slots=True)
class Statistics:
    """One set: sums under way, and what was finished; None while it is not."""

    total: int = 0
    count: int = 0
    running: int = _LEAST
    most: int | None = None
    mean: int | None = None
    inv_stddev: np.float32 | None = None
    inv_sum: np.float32 | None = None


class Normaliser:
    """The unit's constants, its sets of statistics, and which of these the next stores use."""

    def __init__(self, sets: int):
        self.sets = [Statistics() for _ in range(sets)]
        self.chosen = 0
        self.qb = self.qc = self.ln2 = self.ln2_inverse = 0

    def configure(self, x: ConfigNorm) -> None:
        """Chooses a set of statistics, and sets constants unless only that is asked for."""
        if x.stats_id >= len(self.sets):
            raise ExecutionError(f"statistics {x.stats_id} of {len(self.sets)}", hint="0 is the first set")
        self.chosen = x.stats_id
        if x.stats_only:
            return
        self.qb, self.qc = _signed(x.qb), _signed(x.qc)
        if x.inverse:
            self.ln2_inverse = _signed(x.q)
        else:
            self.ln2 = _signed(x.q)

    def gather(self, row: Ints, command: int) -> None:
        """Adds a row, or a block of one, to the chosen statistics."""
        s = self.sets[self.chosen]
        if command == isa.MAX:
            s.running = max(s.running, int(row.max()))
            return
        if command in (isa.VARIANCE, isa.INV_STDDEV):
            apart = row - np.int32(_known(s.mean, "a variance", "a mean"))
            row = apart * apart
        elif command in (isa.SUM_EXP, isa.INV_SUM_EXP):
            if command == isa.SUM_EXP:
                s.most = s.running
            row = self.exponential(row - np.int32(_known(s.most, "a last sum of exponentials", "a sum of exponentials in a store before")))
        s.total, s.count = _signed(s.total + int(row.sum(dtype=np.int64))), s.count + row.size
        if s.count > _COUNTED:
            raise ExecutionError(f"statistics of more than {_COUNTED} elements", hint="shorter rows")
        if command in UNFINISHED:
            self._finish(s, command)

    def _finish(self, s: Statistics, command: int) -> None:
        if command == isa.MEAN:
            s.mean = _quotient(s.total, s.count)
        elif command == isa.INV_STDDEV:
            variance = _quotient(s.total, s.count)
            if variance < 0:
                raise ExecutionError("the squares of a variance exceed 32 bits", hint="smaller sums")
            s.inv_stddev = np.float32(1) / np.float32(isqrt(variance) or 1)
        else:
            if s.total <= 0:
                raise ExecutionError(f"exponentials with the sum {s.total}", hint="set the constants with ConfigNorm, both kinds of q")
            s.inv_sum, s.running = np.float32(127) / np.float32(s.total), _LEAST
            return
        s.total = s.count = 0

    def drop(self) -> None:
        """Forgets sums under way, as every store that writes does."""
        s = self.sets[self.chosen]
        s.total = s.count = 0

    def stored(self, data: Ints, st: ConfigSt) -> NDArray[np.int8]:
        """What leaves for main memory: sums and a factor in f32, rounded to nearest even, saturated."""
        s = self.sets[self.chosen]
        if st.activation == isa.IGELU:
            return scaled(self.gelu(data), st.acc_scale)
        if st.acc_scale != isa.ONE:
            raise ExecutionError(
                "layer norm and softmax with a scale: the hardware ignores it, its public functional model does not",
                hint="set acc_scale to 1, and put the scale into the weights of what reads the result",
            )
        if st.activation == isa.LAYERNORM:
            factor = _known(s.inv_stddev, "a layer norm", "a mean and a standard deviation")
            return scaled(data - np.int32(_known(s.mean, "a layer norm", "a mean")), isa.f32_bits(float(factor)))
        factor = _known(s.inv_sum, "a softmax", "a largest element and a sum of exponentials")
        return scaled(self.exponential(data - np.int32(_known(s.most, "a softmax", "a largest element"))), isa.f32_bits(float(factor)))

    def gelu(self, q: Ints) -> Ints:
        """x times 1 + erf(x / sqrt 2), the error function by a parabola that is flat from -qb on."""
        qb, qc = np.int32(self.qb), np.int32(self.qc)
        near = np.minimum(np.abs(q), np.int32(_signed(-self.qb))) + qb
        return q * (np.where(q < 0, np.int32(-1), np.int32(1)) * (near * near + qc) + qc)

    def exponential(self, q: Ints) -> Ints:
        """exp of what is not positive: a parabola on [-ln 2, 0], halved for each ln 2 further down."""
        halvings = (((-q).astype(np.int64) * self.ln2_inverse) >> 16).astype(np.int32)
        rest = q + halvings * np.int32(self.ln2) + np.int32(self.qb)
        parabola = rest * rest + np.int32(self.qc)
        few = (halvings >= 0) & (halvings < 32)
        return np.where(few, parabola.view(np.uint32) >> np.where(few, halvings, 0).view(np.uint32), 0).astype(np.uint32).view(np.int32)


def _signed(bits: int) -> int:
    """The int32 of an integer's low 32 bits."""
    return (bits + (1 << 31)) % (1 << 32) - (1 << 31)


def _quotient(total: int, count: int) -> int:
    """Rounded towards zero."""
    return -(-total // count) if total < 0 else total // count


def _known(value: Any, what: str, before: str) -> Any:
    if value is None:
        raise ExecutionError(f"{what} needs {before}, which no store made", hint="issue stores with those commands first")
    return value
