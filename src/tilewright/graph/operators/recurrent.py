"""RNN, GRU and LSTM: one product for all time steps, then a sequential loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.graph.operators.elementwise import clamp
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, binary, cast, compare, const, idx, intrinsic, where

_ACTIVATIONS: dict[str, Callable[[Expr, float, float], Expr]] = {
    "Tanh": lambda x, a, b: intrinsic("tanh", x),
    "Sigmoid": lambda x, a, b: intrinsic("sigmoid", x),
    "Relu": lambda x, a, b: binary("max", x, 0),
    "Affine": lambda x, a, b: x * a + b,
    "LeakyRelu": lambda x, a, b: where(compare("<", x, 0), x * a, x),
    "HardSigmoid": lambda x, a, b: clamp(x * a + b, 0, 1),
    "Softsign": lambda x, a, b: x / (intrinsic("abs", x) + 1),
}


@dataclass(frozen=True, slots=True)
class _Cell:
    """Operands and geometry of a recurrent node; x is [time, batch, inputs] or, with layout=1, [batch, time, inputs]."""

    x: Tensor
    w: Tensor
    r: Tensor
    bias: Tensor | None
    lengths: Tensor | None
    time: int
    batch: int
    hidden: int
    directions: int
    batch_first: bool

    def input(self, t: Expr, b: Expr, k: Expr) -> Expr:
        return self.x[(b, t, k) if self.batch_first else (t, b, k)]

    def place(self, d: int, b: Expr, h: Expr) -> tuple[Expr, ...]:
        """Index of a state of direction ``d``."""
        return (b, idx(d), h) if self.batch_first else (idx(d), b, h)

    def moment(self, t: Expr, d: int, b: Expr, h: Expr) -> tuple[Expr, ...]:
        """Index in the sequence of all hidden states."""
        return (b, t, idx(d), h) if self.batch_first else (t, idx(d), b, h)

    @property
    def state_shape(self) -> list[int]:
        return [self.batch, self.directions, self.hidden] if self.batch_first else [self.directions, self.batch, self.hidden]

    @property
    def sequence_shape(self) -> list[int]:
        n = [self.directions, self.batch, self.hidden]
        return [self.batch, self.time, self.directions, self.hidden] if self.batch_first else [self.time, *n]


#: Emits one time step from (direction, states, gate input (batch, row)); returns the new states, the hidden one first.
_Step = Callable[[int, Sequence[Tensor], Callable[[Expr, Expr], Expr]], Sequence[Tensor]]


def _cell(op: Lowering, x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, lengths: Tensor | None) -> _Cell:
    batch_first = bool(op.attribute("layout", 0))
    time, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    return _Cell(x, w, r, bias, lengths, time, batch, r.shape[2], w.shape[0], batch_first)


def _activations(op: Lowering, default: Sequence[str], direction: int) -> list[Callable[[Expr], Expr]]:
    names = op.attribute("activations") or list(default) * 2
    alphas, betas = iter(op.attribute("activation_alpha") or []), iter(op.attribute("activation_beta") or [])
    out: list[Callable[[Expr], Expr]] = []
    for name in names[direction * len(default) : (direction + 1) * len(default)]:
        if name not in _ACTIVATIONS:
            raise op.refuse(f"unknown activation {name!r}", hint=f"known: {', '.join(_ACTIVATIONS)}")
        a = next(alphas, {"LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(name, 1.0)) if name in ("Affine", "LeakyRelu", "HardSigmoid") else 0.0
        b = next(betas, 0.5 if name == "HardSigmoid" else 0.0) if name in ("Affine", "HardSigmoid") else 0.0
        out.append(_bound_activation(_ACTIVATIONS[name], a, b, op.attribute("clip")))
    return out


def _bound_activation(f: Callable[[Expr, float, float], Expr], a: float, b: float, limit: float | None) -> Callable[[Expr], Expr]:
    return lambda v: f(v if limit is None else clamp(v, -limit, limit), a, b)


def _run(op: Lowering, cell: _Cell, initial: Sequence[Tensor | None], step: _Step) -> tuple[Tensor, ...]:
    """All hidden states, then the last value of every state."""
    everything = op.tensor(cell.sequence_shape, cell.x.dtype, "states")
    last = [op.tensor(cell.state_shape, cell.x.dtype, "last") for _ in initial]
    for d in range(cell.directions):
        states = _one_direction(op, cell, d, initial, step, everything)
        for s, out in zip(states, last, strict=True):
            _keep_last(op, cell, d, s, out)
    return (everything, *last)


def _keep_last(op: Lowering, cell: _Cell, d: int, state: Tensor, out: Tensor) -> None:
    op.assign(out, lambda b, h: state[b, h], [cell.batch, cell.hidden], at=lambda b, h: cell.place(d, b, h))


def _one_direction(op: Lowering, cell: _Cell, d: int, initial: Sequence[Tensor | None], step: _Step, everything: Tensor) -> list[Tensor]:
    """Run direction ``d`` over time, filling ``everything``; returns the final states."""
    dtype, gates = cell.x.dtype, cell.w.shape[1]
    backward = d == 1 or op.attribute("direction", "forward") == "reverse"

    def from_input(t: Expr, b: Expr, g: Expr, k: Expr) -> Expr:
        return cell.input(t, b, k) * cell.w[idx(d), g, k]

    product = op.reduce([cell.time, cell.batch, gates], [cell.x.shape[2]], from_input, dtype, stem="inputs")

    def start(s: Tensor | None) -> Tensor:
        shape = [cell.batch, cell.hidden]
        return op.compute(shape, lambda b, h: const(0, dtype) if s is None else s[cell.place(d, b, h)], dtype, "state")

    states = [start(s) for s in initial]
    with op.sequential(cell.time, "t") as t:
        _one_step(op, cell, d, t, backward, product, states, step, everything)
    return states


def _one_step(
    op: Lowering, cell: _Cell, d: int, t: Expr, backward: bool, product: Tensor, states: Sequence[Tensor], step: _Step, everything: Tensor
) -> None:
    """One time step of every sequence that is still running; a finished one keeps its states and yields zeros."""
    shape, lengths = [cell.batch, cell.hidden], cell.lengths

    def length(b: Expr) -> Expr:
        return idx(cell.time) if lengths is None else cast(lengths[b], ty.index)

    def moment(b: Expr) -> Expr:
        """Position in the sequence that step ``t`` treats (a finished backward one stays at the start)."""
        return binary("max", length(b) - 1 - t, 0) if backward else t

    def gate(b: Expr, g: Expr) -> Expr:
        value = product[moment(b), b, g]
        return value if cell.bias is None else value + cell.bias[idx(d), g]

    def while_running(b: Expr, value: Expr, otherwise: Expr) -> Expr:
        return value if lengths is None else where(compare("<", t, length(b)), value, otherwise)

    def advance(old: Tensor, new: Tensor) -> None:
        op.assign(old, lambda b, h: while_running(b, new[b, h], old[b, h]), shape)

    for old, new in zip(states, step(d, states, gate), strict=True):
        advance(old, new)
    op.assign(
        everything,
        lambda b, h: while_running(b, states[0][b, h], Const(0.0, everything.dtype)),
        shape,
        at=lambda b, h: cell.moment(while_running(b, moment(b), t), d, b, h),
    )


def _recurrent_product(op: Lowering, cell: _Cell, d: int, h: Tensor, rows: int, first: int = 0) -> Tensor:
    """h @ R^T for ``rows`` gate rows from ``first``."""
    return op.reduce(
        [cell.batch, rows], [cell.hidden], lambda b, g, k: h[b, k] * cell.r[idx(d), g + first, k], cell.x.dtype, stem="recurrent"
    )


@operator("RNN")
def rnn(
    op: Lowering, x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None = None, lengths: Tensor | None = None, start: Tensor | None = None
) -> tuple[Tensor, ...]:
    cell = _cell(op, x, w, r, bias, lengths)

    def step(d: int, states: Sequence[Tensor], gate: Callable[[Expr, Expr], Expr]) -> Sequence[Tensor]:
        (f,) = _activations(op, ["Tanh"], d)
        hr = _recurrent_product(op, cell, d, states[0], cell.hidden)
        b = cell.bias
        return [
            op.compute(
                [cell.batch, cell.hidden],
                lambda n, h: f(gate(n, h) + hr[n, h] + (b[idx(d), h + cell.hidden] if b is not None else const(0, x.dtype))),
                x.dtype,
                "next",
            )
        ]

    return _run(op, cell, [start], step)


@operator("GRU")
def gru(
    op: Lowering, x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None = None, lengths: Tensor | None = None, start: Tensor | None = None
) -> tuple[Tensor, ...]:
    cell = _cell(op, x, w, r, bias, lengths)
    n, after = cell.hidden, bool(op.attribute("linear_before_reset", 0))
    shape = [cell.batch, n]

    def step(d: int, states: Sequence[Tensor], gate: Callable[[Expr, Expr], Expr]) -> Sequence[Tensor]:
        f, g = _activations(op, ["Sigmoid", "Tanh"], d)
        (h,) = states

        def own_bias(k: Expr) -> Expr:
            return const(0, x.dtype) if cell.bias is None else cell.bias[idx(d), k + 3 * n]

        hr = _recurrent_product(op, cell, d, h, 2 * n)
        update = op.compute(shape, lambda b, k: f(gate(b, k) + hr[b, k] + own_bias(k)), x.dtype, "update")
        reset = op.compute(shape, lambda b, k: f(gate(b, k + n) + hr[b, k + n] + own_bias(k + n)), x.dtype, "reset")
        if after:
            linear = _recurrent_product(op, cell, d, h, n, 2 * n)
            fresh = op.compute(
                shape, lambda b, k: g(gate(b, k + 2 * n) + reset[b, k] * (linear[b, k] + own_bias(k + 2 * n))), x.dtype, "fresh"
            )
        else:
            gated = op.compute(shape, lambda b, k: reset[b, k] * h[b, k], x.dtype, "gated")
            linear = _recurrent_product(op, cell, d, gated, n, 2 * n)
            fresh = op.compute(shape, lambda b, k: g(gate(b, k + 2 * n) + linear[b, k] + own_bias(k + 2 * n)), x.dtype, "fresh")
        return [op.compute(shape, lambda b, k: (1 - update[b, k]) * fresh[b, k] + update[b, k] * h[b, k], x.dtype, "next")]

    return _run(op, cell, [start], step)


@operator("LSTM")
def lstm(
    op: Lowering,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    start_h: Tensor | None = None,
    start_c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    cell = _cell(op, x, w, r, bias, lengths)
    n, shape = cell.hidden, [cell.batch, cell.hidden]

    def step(d: int, states: Sequence[Tensor], gate: Callable[[Expr, Expr], Expr]) -> Sequence[Tensor]:
        f, g, out = _activations(op, ["Sigmoid", "Tanh", "Tanh"], d)
        h, c = states
        hr = _recurrent_product(op, cell, d, h, 4 * n)

        def total(b: Expr, k: Expr, number: int) -> Expr:
            """Input of gate ``number`` in the order input, output, forget, cell."""
            value = gate(b, k + number * n) + hr[b, k + number * n]
            return value if cell.bias is None else value + cell.bias[idx(d), k + (4 + number) * n]

        def peep(k: Expr, number: int, state: Expr) -> Expr:
            return const(0, x.dtype) if peepholes is None else peepholes[idx(d), k + number * n] * state

        admit = op.compute(shape, lambda b, k: f(total(b, k, 0) + peep(k, 0, c[b, k])), x.dtype, "admit")
        if op.attribute("input_forget", 0):
            keep = op.compute(shape, lambda b, k: 1 - admit[b, k], x.dtype, "keep")
        else:
            keep = op.compute(shape, lambda b, k: f(total(b, k, 2) + peep(k, 2, c[b, k])), x.dtype, "keep")
        memory = op.compute(shape, lambda b, k: keep[b, k] * c[b, k] + admit[b, k] * g(total(b, k, 3)), x.dtype, "memory")
        emit = op.compute(shape, lambda b, k: f(total(b, k, 1) + peep(k, 1, memory[b, k])), x.dtype, "emit")
        return [op.compute(shape, lambda b, k: emit[b, k] * out(memory[b, k]), x.dtype, "next"), memory]

    return _run(op, cell, [start_h, start_c], step)
