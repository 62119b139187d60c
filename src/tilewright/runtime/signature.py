"""How a kernel is called: which arguments go in, which come out, and their shapes.

An argument is an output when the kernel writes it and never needs what it held before: nothing reads
it, or each element is provably stored before it is read (exactly, on the isl views of the program).
Otherwise it is in/out and the caller must provide it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.affine import WRITE, Access, IslText, Region, Statement, access_relation, is_exact, region, schedule_map
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr, Var
from tilewright.runtime.dlpack import storage_dtype
from tilewright.util.errors import IRTypeError, RuntimeFailure

if TYPE_CHECKING:
    import islpy as isl


class Role(Enum):
    """What a kernel does with an argument."""

    IN = "in"
    OUT = "out"
    INOUT = "in/out"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument: ``complete`` outputs are written in every element (others are handed over zeroed)."""

    buffer: Buffer
    role: Role
    complete: bool
    storage: np.dtype

    @property
    def name(self) -> str:
        return self.buffer.name

    @property
    def written(self) -> bool:
        return self.role is not Role.IN

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The logical shape under ``sizes``."""
        return tuple(int(ex.evaluate(e, sizes)) for e in self.buffer.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.buffer.dtype}[{', '.join(map(extent_text, self.buffer.shape))}] ({self.role.value})"


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of kernel ``name`` in order, and its symbolic sizes."""

    name: str
    parameters: tuple[Parameter, ...]
    sizes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """What a caller must provide: in and in/out parameters."""
        return tuple(p for p in self.parameters if p.role is not Role.OUT)

    @property
    def outputs(self) -> tuple[Parameter, ...]:
        """What a call allocates when it is not given."""
        return tuple(p for p in self.parameters if p.role is Role.OUT)

    @property
    def written(self) -> tuple[Parameter, ...]:
        """What a call returns."""
        return tuple(p for p in self.parameters if p.written)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"

    def infer_sizes(self, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, int]) -> dict[str, int]:
        """Values of the symbolic sizes from argument shapes and explicit values.

        RuntimeFailure names the arguments that disagree, or the size nothing determines.
        """
        for name in given:
            if name not in self.sizes:
                raise RuntimeFailure(f"{self.name} has no size {name!r}", hint=f"sizes: {', '.join(self.sizes) or 'none'}")
        known = {n: int(v) for n, v in given.items()}
        source = {n: f"{n}={v} was passed" for n, v in given.items()}
        for p in self.parameters:
            for d, e in enumerate(p.buffer.shape if p.name in shapes else ()):
                if not isinstance(e, Var) or d >= len(shapes[p.name]):
                    continue
                value = shapes[p.name][d]
                where = f"dimension {d} of {p.name} is {value}"
                if known.setdefault(e.name, value) != value:
                    raise RuntimeFailure(f"{self.name}: size {e.name} has two values: {source[e.name]}, {where}")
                source.setdefault(e.name, where)
        if missing := [n for n in self.sizes if n not in known]:
            raise RuntimeFailure(
                f"{self.name}: nothing determines size {', '.join(missing)}", hint=f"pass {', '.join(f'{n}=...' for n in missing)}"
            )
        return known


def extent_text(e: Expr) -> str:
    """An extent as a person writes it: ``64``, ``N``, ``N + 1``."""
    return str(e.value) if isinstance(e, Const) else str(e)


def signature(kernel: st.Kernel, outputs: Sequence[str] | None = None) -> Signature:
    """The signature of ``kernel``. ``outputs`` names the outputs where the proof is out of reach."""
    written, read = st.written_buffers(kernel.body), st.read_buffers(kernel.body)
    for name in outputs or ():
        if name not in written or name not in {b.name for b in kernel.args}:
            raise RuntimeFailure(f"{name!r} is not an output of {kernel.name}: it writes no argument of that name")
    program = region(kernel.body) if written else None
    parameters = []
    for b in kernel.args:
        role, complete = Role.IN, False
        if b.name in written and program is not None:
            complete = _writes_all(program, b)
            fresh = b.name in outputs if outputs is not None else b.name not in read or _writes_before_reading(program, b)
            role = Role.OUT if fresh else Role.INOUT
        parameters.append(Parameter(b, role, complete, storage_dtype(b.dtype)))
    return Signature(kernel.name, tuple(parameters), tuple(v.name for v in kernel.sizes))


def parameters_of(kernel: st.Kernel, roles: Sequence[tuple[Role, bool]]) -> Signature:
    """The signature of ``kernel`` whose parameters' roles and completeness are already known."""
    parameters = tuple(Parameter(b, role, complete, storage_dtype(b.dtype)) for b, (role, complete) in zip(kernel.args, roles, strict=True))
    return Signature(kernel.name, parameters, tuple(v.name for v in kernel.sizes))


def _writes_all(program: Region, b: Buffer) -> bool:
    """Whether every element of ``b`` is surely stored."""
    import islpy as isl

    writes = _surely_written(program, b)
    if b.rank == 0:
        return writes is not None
    names = ", ".join(f"e{d}" for d in range(b.rank))
    text = IslText({})
    bounds = [(f"e{d}", text.expr(e)) for d, e in enumerate(b.shape)]
    if writes is None or any(hi is None for _, hi in bounds):
        return False
    box = isl.Set(f"{_parameters(text)}{{ {b.name}[{names}] : {' and '.join(f'0 <= {v} < {hi}' for v, hi in bounds)} }}")
    for size, safe in text.parameters.items():
        box = box.set_dim_name(isl.dim_type.param, box.find_dim_by_name(isl.dim_type.param, safe), size)
    return bool(box.is_subset(writes.range()))


def _writes_before_reading(program: Region, b: Buffer) -> bool:
    """Whether each element of ``b`` is surely stored before anything may read it."""
    import islpy as isl

    writes, reads = _surely_written(program, b), _touched(program, b, lambda s, a: a.op != WRITE)
    if writes is None or reads is None:
        return reads is None
    times = writes.get_space().domain()
    later = isl.Map.lex_lt(times)
    return bool(reads.reverse().is_subset(writes.reverse().apply_range(later)))


def _surely_written(program: Region, b: Buffer) -> isl.Map | None:
    return _touched(program, b, lambda s, a: a.op == WRITE and is_exact(s, a))


def _touched(program: Region, b: Buffer, wanted: Callable[[Statement, Access], bool]) -> isl.Map | None:
    """Times to the elements of ``b`` touched then by the wanted accesses; None if there are none."""
    length = max(len(s.time) for s in program.statements)
    found = None
    for s in program.statements:
        for a in s.accesses:
            if a.buffer.name == b.name and wanted(s, a):
                here = schedule_map(s, length).reverse().apply_range(access_relation(s, a))
                found = here if found is None else found.union(here)
    return found


def _parameters(text: IslText) -> str:
    return f"[{', '.join(text.parameters.values())}] -> " if text.parameters else ""


def check_kernel(kernel: object) -> st.Kernel:
    """``kernel`` itself; RuntimeFailure for anything that is not a Kernel."""
    if not isinstance(kernel, st.Kernel):
        raise RuntimeFailure(f"{type(kernel).__name__} is not a Kernel", hint="pass a Kernel or a Schedule")
    if kernel.instruction is not None:
        raise IRTypeError(f"{kernel.name} is the instruction {kernel.instruction}, not a program", hint="build a kernel that calls it")
    return kernel
