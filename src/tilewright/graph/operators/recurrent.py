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

    def state(self, s: Tensor, d: Expr, b: Expr, h: Expr) -> Expr:
        return s[(b, d, h) if self.batch_first else (d, b, h)]


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


def _run(
    op: Lowering,
    cell: _Cell,
    initial: Sequence[Tensor | None],
    step: Callable[[int, Tensor, Sequence[Tensor], Callable[..., Expr]], Sequence[Tensor]],
) -> tuple[Tensor, ...]:
    """All hidden states [time, directions, batch, hidden] and the last value of every state.

    ``step(direction, recurrent operand, states, gate input)`` emits one time step and returns the
    new states; states[0] is the hidden one.
    """
    dtype, gates = cell.x.dtype, cell.w.shape[1]
    everything = op.tensor(
        [cell.batch, cell.time, cell.directions, cell.hidden]
        if cell.batch_first
        else [cell.time, cell.directions, cell.batch, cell.hidden],
        dtype,
        "states",
    )
    last = [
        op.tensor(
            [cell.batch, cell.directions, cell.hidden] if cell.batch_first else [cell.directions, cell.batch, cell.hidden], dtype, "last"
        )
        for _ in initial
    ]
    for d in range(cell.directions):
        dd = idx(d)
        product = op.reduce(
            [cell.time, cell.batch, gates],
            [cell.x.shape[2]],
            lambda t, b, g, k, dd=dd: cell.input(t, b, k) * cell.w[dd, g, k],
            dtype,
            stem="inputs",
        )
        states = [
            op.compute(
                [cell.batch, cell.hidden],
                lambda b, h, s=s, dd=dd: const(0, dtype) if s is None else cell.state(s, dd, b, h),
                dtype,
                "state",
            )
            for s in initial
        ]
        backward = d == 1 or op.attribute("direction", "forward") == "reverse"
        with op.sequential(cell.time, "t") as t:
            _one_step(op, cell, dd, t, backward, product, states, step, everything)
        for s, out in zip(states, last, strict=True):
            op.assign(
                out,
                lambda b, h, s=s: s[b, h],
                [cell.batch, cell.hidden],
                at=lambda b, h, dd=dd: (b, dd, h) if cell.batch_first else (dd, b, h),
            )
    return (everything, *last)


def _one_step(op, cell, dd, t, backward, product, states, step, everything) -> None:  # type: ignore[no-untyped-def]
    def length(b: Expr) -> Expr:
        return idx(cell.time) if cell.lengths is None else cast(cell.lengths[b], ty.index)

    def moment(b: Expr) -> Expr:
        """Position in the sequence that step ``t`` treats (past the end it repeats the last)."""
        return binary("max", length(b) - 1 - t, 0) if backward else t

    def gate(b: Expr, g: Expr) -> Expr:
        value = product[moment(b), b, g]
        return value if cell.bias is None else value + cell.bias[dd, g]

    fresh = step(int(dd.value), cell.r, states, gate)

    def alive(b: Expr) -> Expr:
        return compare("<", t, length(b))

    shape = [cell.batch, cell.hidden]
    for old, new in zip(states, fresh, strict=True):
        op.assign(old, lambda b, h, old=old, new=new: new[b, h] if cell.lengths is None else where(alive(b), new[b, h], old[b, h]), shape)

    def place(b: Expr, h: Expr) -> tuple[Expr, ...]:
        at = where(alive(b), moment(b), t) if backward and cell.lengths is not None else moment(b)
        return (b, at, dd, h) if cell.batch_first else (at, dd, b, h)

    hidden = states[0]
    op.assign(
        everything,
        lambda b, h: hidden[b, h] if cell.lengths is None else where(alive(b), hidden[b, h], Const(0.0, everything.dtype)),
        shape,
        at=place,
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

    def step(d: int, r: Tensor, states: Sequence[Tensor], gate: Callable[..., Expr]) -> Sequence[Tensor]:
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

    def step(d: int, r: Tensor, states: Sequence[Tensor], gate: Callable[..., Expr]) -> Sequence[Tensor]:
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

    def step(d: int, r: Tensor, states: Sequence[Tensor], gate: Callable[..., Expr]) -> Sequence[Tensor]:
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
