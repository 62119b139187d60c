"""Whole networks in one native call: compiled kernels over one planned block of memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from tilewright.runtime.arguments import Packed
from tilewright.runtime.dlpack import as_numpy
from tilewright.runtime.memory import ALIGNMENT, together
from tilewright.runtime.module import Module
from tilewright.runtime.native import native_library
from tilewright.runtime.packing import physical_shape
from tilewright.runtime.pool import ThreadPool, default_pool, default_threads
from tilewright.runtime.signature import Parameter
from tilewright.util.errors import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel of a sequence; ``arguments`` names the value passed as each kernel argument, in order."""

    module: Module
    arguments: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Profile of one step: mean ``seconds`` of a run."""

    index: int
    label: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Form:
    """How a value lies in memory: what every step that uses it has to agree on."""

    dtype: np.dtype
    shape: tuple[int, ...]
    layout: str

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}" + (f" in layout '{self.layout}'" if self.layout else "")


class _StepRecord(ctypes.Structure):
    """%tw.step of sequence.ll."""

    _fields_ = [("entry", ctypes.c_void_p), ("arguments", ctypes.c_void_p), ("sizes", ctypes.c_void_p)]


class Sequence:
    """Compiled kernels run one after the other, with every argument address resolved beforehand.

    Values are names. Each is either planned, ``plan[name]`` being its byte offset in the arena
    (a multiple of 64; lifetimes may share bytes), a constant whose array is copied, or external: an
    array that :meth:`bind` provides. Constants and planned values lie in one block of large pages.
    One arena, one workspace (the largest any step needs) and one thread pool serve all steps; a lock
    makes concurrent runs take turns.

    Raises RuntimeFailure when a step names an unknown value, two steps disagree about the form
    (element type, shape, layout) of a value, or the plan does not fit the arena.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        plan: Mapping[str, int],
        arena_bytes: int,
        *,
        constants: Mapping[str, np.ndarray | Packed] | None = None,
        external: Iterable[str] = (),
        threads: int | None = None,
    ):
        self.steps = tuple(steps)
        self.threads = default_threads() if threads is None else threads
        self.arena_bytes = arena_bytes
        self._plan = dict(plan)
        self._constants = {n: a.data if isinstance(a, Packed) else as_numpy(a, n) for n, a in (constants or {}).items()}
        self._external = tuple(external)
        self._forms = _forms(self.steps)
        self._written = frozenset(
            name for s in self.steps for name, p in zip(s.arguments, s.module.signature.parameters, strict=True) if p.written
        )
        self._check()
        workspace_bytes = max((self._need(s) for s in self.steps), default=0)
        self._arena, self._workspace, *kept = together([arena_bytes, workspace_bytes, *(a.nbytes for a in self._constants.values())])
        for (name, array), room in zip(self._constants.items(), kept, strict=True):
            self._constants[name] = room.view(array.dtype).reshape(array.shape)
            self._constants[name][...] = array
        self._pool: ThreadPool | None = default_pool(self.threads) if self.threads != 1 else None
        self._lock = threading.Lock()
        self._table = (_StepRecord * len(self.steps))()
        self._cells: dict[str, list[tuple[Any, int]]] = {n: [] for n in self._external}
        self._arrays = [self._resolve(n) for n in range(len(self.steps))]
        self._bound: dict[str, np.ndarray] = {}
        self._addresses = ctypes.addressof(self._table), len(self.steps), self._workspace.ctypes.data
        library = native_library("sequence.ll", ("tw_sequence_run", "tw_sequence_profile"))
        p, n = ctypes.c_void_p, ctypes.c_int64
        self._run = library.function("tw_sequence_run", None, p, n, p, p)
        self._profile = library.function("tw_sequence_profile", None, p, n, p, p, p)

    def bind(self, **arrays: Any) -> None:
        """Set external values to ``arrays`` (C-contiguous, of the form the steps use); they are used in place.

        Waits for a running call. An array stays bound, and alive, until another takes its place.
        """
        with self._lock:
            self._set(arrays)

    def run(self, **arrays: Any) -> None:
        """Bind ``arrays``, then execute every step, as one uninterrupted turn.

        Results are in the arrays bound to external values and in the arena (see :meth:`value`).
        """
        with self._lock:
            self._set(arrays)
            self._require_bound()
            self._run(*self._addresses, self._pool_handle())

    def profile(self, repeats: int = 1) -> tuple[StepTime, ...]:
        """Execute ``repeats`` times with a clock around each step; mean time per step, in order."""
        if repeats < 1:
            raise RuntimeFailure(f"profile of {repeats} repeats", hint="repeats is at least 1")
        spent = np.zeros(len(self.steps), np.int64)
        with self._lock:
            self._require_bound()
            for _ in range(repeats):
                self._profile(*self._addresses, self._pool_handle(), spent.ctypes.data)
        labels = [s.label or s.module.kernel.name for s in self.steps]
        return tuple(StepTime(i, label, int(t) / repeats / 1e9) for i, (label, t) in enumerate(zip(labels, spent, strict=True)))

    def value(self, name: str) -> np.ndarray:
        """The array of a value in memory order: a view of the arena, the constant, or the bound array.

        A view of the arena is valid until a later step of the plan reuses its bytes.
        """
        if name in self._plan:
            form = self._form(name)
            start = self._plan[name]
            return self._arena[start : start + form.nbytes].view(form.dtype).reshape(form.shape)
        if name in self._constants:
            return self._constants[name]
        if name in self._bound:
            return self._bound[name]
        if name in self._external:
            raise RuntimeFailure(f"external value {name!r} is not bound", hint="bind it first")
        raise RuntimeFailure(f"the sequence has no value {name!r}")

    def _pool_handle(self) -> int | None:
        return self._pool.handle if self._pool else None

    def _need(self, step: Step) -> int:
        return step.module.code.workspace_bytes(self.threads)

    def _form(self, name: str) -> _Form:
        if name not in self._forms:
            raise RuntimeFailure(f"no step uses value {name!r}")
        return self._forms[name]

    def _check(self) -> None:
        sources = [*self._plan, *self._constants, *self._external]
        if twice := {n for n in sources if sources.count(n) > 1}:
            raise RuntimeFailure(f"values given more than once: {', '.join(sorted(twice))}", hint="each is planned, constant or external")
        for name, form in self._forms.items():
            if name not in sources:
                raise RuntimeFailure(f"value {name!r} has no place", hint="plan an offset for it, or make it a constant or external")
            offset = self._plan.get(name)
            if offset is not None and (offset < 0 or offset % ALIGNMENT or offset + form.nbytes > self.arena_bytes):
                raise RuntimeFailure(
                    f"value {name!r} ({form}, {form.nbytes} bytes) at offset {offset} does not fit the arena of {self.arena_bytes} bytes",
                    hint=f"offsets are multiples of {ALIGNMENT} inside it",
                )
        for name, array in self._constants.items():
            self._match(name, array, f"constant {name!r}")
        self._check_overlap()

    def _check_overlap(self) -> None:
        """A step's written values may share no bytes with its other arguments (kernels assume no aliasing)."""
        for n, step in enumerate(self.steps):
            spans = [(name, p) for name, p in zip(step.arguments, step.module.signature.parameters, strict=True)]
            for i, (name, p) in enumerate(spans):
                for j, (other, _) in enumerate(spans):
                    if p.written and i != j and self._share(name, other):
                        raise RuntimeFailure(
                            f"step {n} ({step.label or step.module.kernel.name}) writes {name!r}, which overlaps its argument {other!r}",
                            hint="give them separate bytes in the plan",
                        )

    def _share(self, a: str, b: str) -> bool:
        if a == b:
            return self._forms[a].nbytes > 0
        if a not in self._plan or b not in self._plan:
            return False
        lo, hi = self._plan[a], self._plan[b]
        return max(lo, hi) < min(lo + self._forms[a].nbytes, hi + self._forms[b].nbytes)

    def _resolve(self, n: int) -> tuple[Any, Any]:
        """Fill the table's row for step ``n``; returns the arrays the row points at."""
        step = self.steps[n]
        arguments = (ctypes.c_void_p * len(step.arguments))()
        for i, name in enumerate(step.arguments):
            if name in self._cells:
                self._cells[name].append((arguments, i))
            elif name in self._plan:
                arguments[i] = self._arena.ctypes.data + self._plan[name]
            else:
                arguments[i] = self._constants[name].ctypes.data
        names = step.module.signature.sizes
        sizes = (ctypes.c_int64 * len(names))(*(step.sizes[s] for s in names))
        self._table[n] = _StepRecord(step.module.address, ctypes.addressof(arguments), ctypes.addressof(sizes))
        return arguments, sizes

    def _set(self, arrays: Mapping[str, Any]) -> None:
        if not arrays:
            return
        checked = {}
        for name, array in arrays.items():
            if name not in self._cells:
                raise RuntimeFailure(f"{name!r} is not an external value", hint=f"external are: {', '.join(self._external) or 'none'}")
            view = array.data if isinstance(array, Packed) else as_numpy(array, name)
            if name in self._forms:
                self._match(name, view, f"value {name!r}")
                if not view.flags.writeable and name in self._written:
                    raise RuntimeFailure(f"value {name!r} is read-only, and a step writes it", hint="bind a writable array")
            checked[name] = view
        self._check_bound({**self._bound, **checked})
        for name, view in checked.items():
            self._bound[name] = view
            for arguments, i in self._cells[name]:
                arguments[i] = view.ctypes.data

    def _check_bound(self, bound: Mapping[str, np.ndarray]) -> None:
        """Written external arrays may not share memory with each other or with any other one bound."""
        for name in bound:
            if name in self._written:
                for other in bound:
                    if other != name and np.may_share_memory(bound[name], bound[other]):
                        raise RuntimeFailure(f"value {name!r}, which is written, overlaps value {other!r} in memory", hint="bind a copy")

    def _require_bound(self) -> None:
        if len(self._bound) < len(self._external) and (missing := [n for n in self._external if n not in self._bound and n in self._forms]):
            raise RuntimeFailure(f"external values without an array: {', '.join(missing)}", hint="bind them first")

    def _match(self, name: str, array: np.ndarray, where: str) -> None:
        form = self._forms.get(name)
        if form is None:
            return
        if array.dtype != form.dtype or array.shape != form.shape:
            raise RuntimeFailure(f"{where} is {array.dtype}{list(array.shape)}, expected {form}")
        if not array.flags.c_contiguous or not array.flags.aligned:
            raise RuntimeFailure(f"{where} is not C-contiguous and aligned", hint="pass numpy.ascontiguousarray(x)")


def _forms(steps: tuple[Step, ...]) -> dict[str, _Form]:
    """The form of each value; RuntimeFailure when steps disagree or are called with the wrong arguments."""
    forms: dict[str, tuple[_Form, int]] = {}
    for n, step in enumerate(steps):
        sig = step.module.signature
        label = f"step {n} ({step.label or sig.name})"
        if len(step.arguments) != len(sig.parameters):
            raise RuntimeFailure(f"{label} passes {len(step.arguments)} arguments, {sig} takes {len(sig.parameters)}")
        if missing := [s for s in sig.sizes if s not in step.sizes]:
            raise RuntimeFailure(f"{label} leaves size {', '.join(missing)} open", hint="give every size in Step.sizes")
        for name, p in zip(step.arguments, sig.parameters, strict=True):
            form = _form_of(p, step.sizes)
            seen, where = forms.setdefault(name, (form, n))
            if seen != form:
                raise RuntimeFailure(f"{label} takes {name!r} as {form}, but step {where} has it as {seen}")
    return {name: form for name, (form, _) in forms.items()}


def _form_of(p: Parameter, sizes: Mapping[str, int]) -> _Form:
    layout = p.buffer.layout
    shape = p.shape(sizes)
    return _Form(p.storage, physical_shape(layout, shape) if layout else shape, str(layout or ""))
