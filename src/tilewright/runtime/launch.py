"""Launching block programs: ``kernel[grid](arrays, numbers)``, specialised on shapes, strides and integers.

A launch is compiled once for each combination of element types, shapes, strides, integers and constexprs: the
program is read, turned into a kernel over the real arrays, scheduled like any other and built.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, update_wrapper
from typing import Any

import numpy as np

from tilewright.codegen.commands import has_words
from tilewright.hw import Machine, load_machine
from tilewright.ir import types as ty
from tilewright.ir.stmt import Kernel, allocated
from tilewright.lang.block.builder import Builder, Specialized, pointer_type
from tilewright.lang.block.expressions import Definition, definition_of
from tilewright.lang.block.ir import BlockType, Function, Value
from tilewright.lang.block.kernels import Array, kernel_of
from tilewright.lang.block.marks import Constexpr
from tilewright.lang.block.memory import Descriptor
from tilewright.lang.block.reader import read
from tilewright.lang.block.tables import Known, Table
from tilewright.lang.block.uses import stored_arguments
from tilewright.runtime.descriptors import TensorDescriptor
from tilewright.runtime.dlpack import as_numpy
from tilewright.runtime.pointers import Pointers
from tilewright.util.errors import LanguageError, RuntimeFailure

#: Bytes that blocks over whole arrays may take; programs that need more run one by one.
WORKSPACE = 1 << 30
#: Keyword arguments of a launch that say how other hardware runs it.
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "matrix_instr_nonkdim")


#: Options of ``jit`` that change no result and mean nothing here.
JIT_OPTIONS = ("version", "repr", "launch_metadata", "do_not_specialize", "do_not_specialize_on_alignment", "debug", "noinline")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A float argument: its value is passed at each launch."""

    dtype: ty.DType = ty.f32


@dataclass(frozen=True, slots=True)
class Same:
    """An array that is an earlier argument once more (``number`` counts the arguments that are passed at run time)."""

    dtype: ty.DType
    number: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """An array of the addresses of arrays."""

    arrays: tuple[Array | Same, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor descriptor made by the host: the array behind it, and what the program sees."""

    base: Array | Same
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    block: tuple[int, ...]


#: Elements of the largest array of integers whose contents a launch with addresses is compiled for.
KNOWN = 1024

#: What a launch is compiled for: of each parameter an Array, a Scalar, or a compile-time value; tuples hold several.
Spec = Any


@dataclass(frozen=True, slots=True)
class Launch:
    """One specialisation: block IR, kernel, and (once built) the module that runs it."""

    function: Function
    kernel: Kernel
    module: Any = None


class JitFunction:
    """A block program. ``f[grid](*arguments)`` runs it; from other programs it is called like a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.block_function = function
        self.signature = inspect.signature(function)
        self.launches: dict[Any, Launch] = {}
        annotations = {n: p.annotation for n, p in self.signature.parameters.items()}
        self.constexprs = {n for n, a in annotations.items() if a is Constexpr or (isinstance(a, str) and a.endswith("constexpr"))}

    @property
    def definition(self) -> Definition:
        """Its source, read."""
        return definition_of(self.block_function)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        """A launcher for ``grid``: an int, a tuple of up to three, or a function of the arguments that returns one."""
        return lambda *arguments, **keywords: self.run(grid, arguments, keywords)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise LanguageError(f"{self.definition.name} is a block program", hint=f"launch it on a grid: {self.definition.name}[grid](...)")

    def run(self, grid: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Run all programs of ``grid``; written arrays are updated in place.

        ``machine=`` (a Machine or its name, default: this host) says where: an accelerator is simulated.
        """
        machine, keywords = self.placed(keywords)
        launch, values = self.specialized(grid, self.bound(arguments, keywords), build=True, machine=machine)
        launch.module(*values)

    def placed(self, keywords: Mapping[str, Any]) -> tuple[Machine | None, dict[str, Any]]:
        """The machine that a launch names (None: this host), and its other keywords."""
        if "machine" in self.signature.parameters or "machine" not in keywords:
            return None, dict(keywords)
        machine = load_machine(keywords["machine"]) if isinstance(keywords["machine"], str) else keywords["machine"]
        if not isinstance(machine, Machine | None):
            raise RuntimeFailure(
                f"launch of {self.definition.name}: {machine!r} is no machine", hint='a Machine, or its name: machine="gemmini"'
            )
        return machine, {k: v for k, v in keywords.items() if k != "machine"}

    def block_ir(self, grid: Any, *arguments: Any, **keywords: Any) -> Function:
        """The block IR of a launch with these arguments."""
        return self.specialized(grid, self.bound(arguments, keywords), build=False)[0].function

    def kernel(self, grid: Any, *arguments: Any, **keywords: Any) -> Kernel:
        """The loop kernel of a launch with these arguments, not scheduled yet."""
        return self.specialized(grid, self.bound(arguments, keywords), build=False)[0].kernel

    def module(self, grid: Any, *arguments: Any, **keywords: Any) -> Any:
        """The compiled module of a launch with these arguments; ``machine=`` as in a launch."""
        machine, keywords = self.placed(keywords)
        return self.specialized(grid, self.bound(arguments, keywords), build=True, machine=machine)[0].module

    # --- specialisation ---------------------------------------------------------------------

    def bound(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter; RuntimeFailure names what is missing or too much."""
        parameters = self.signature.parameters
        given = {k: v for k, v in keywords.items() if k in parameters or k not in OPTIONS}
        unknown = [k for k in given if k not in parameters]
        if unknown:
            message = f"launch of {self.definition.name}: there is no parameter {unknown[0]!r}"
            raise RuntimeFailure(message, hint=self._spelled())
        try:
            bound = self.signature.bind(*arguments, **given)
        except TypeError as error:
            missing = [n for n in self.constexprs if n not in given and str(error).endswith(f"{n!r}")]
            hint = f"constexprs are passed by name: {missing[0]}=64" if missing else self._spelled()
            raise RuntimeFailure(f"launch of {self.definition.name}: {error}", hint=hint) from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def _spelled(self) -> str:
        """How it is called."""
        names = (f"{n}: tl.constexpr" if n in self.constexprs else n for n in self.signature.parameters)
        return f"{self.definition.name}[grid]({', '.join(names)})"

    def specialized(self, grid: Any, named: dict[str, Any], build: bool, machine: Machine | None = None) -> tuple[Launch, list[Any]]:
        """The launch for these arguments on ``machine``, and the arrays and numbers its module takes."""
        specs: dict[str, Spec] = {}
        values: list[Any] = []
        for name, x in named.items():
            specs[name] = self.spec(name, x, values)
        if any(isinstance(s, Addresses) for s in specs.values()):
            specs = _with_contents(specs, named)
        sizes = _grid(grid, named, self.definition.name)
        key = (machine, sizes, tuple(_key(s) for s in specs.values()))
        launch = self.launches.get(key)
        if launch is None:
            function, arrays = self.read(specs, sizes)
            launch = self.launches[key] = Launch(function, kernel_of(function, arrays, sizes))
        if build and launch.module is None:
            kernel, module = _module(launch.kernel, lambda: self.program_by_program(specs, sizes), machine)
            launch = self.launches[key] = Launch(launch.function, kernel, module)
        distinct = (v for v in values if v is not None)
        shaped = [_passed(v, b.static_shape) for v, b in zip(distinct, launch.kernel.args, strict=True)]
        return launch, shaped

    def program_by_program(self, specs: Mapping[str, Spec], sizes: tuple[int, ...]) -> Kernel:
        """The kernel whose programs keep their blocks to themselves."""
        function, arrays = self.read(specs, sizes)
        return kernel_of(function, arrays, sizes, whole=False)

    def spec(self, name: str, x: Any, values: list[Any]) -> Spec:
        """What ``x`` means to the compiler; what is passed at run time is added to ``values``."""
        if name in self.constexprs:
            if is_array(x):
                raise RuntimeFailure(
                    f"launch of {self.definition.name}: constexpr {name} is an array", hint="remove the annotation tl.constexpr"
                )
            return x
        if isinstance(x, Pointers):
            return Addresses(tuple(self.spec(f"{name}[{n}]", y, values) for n, y in enumerate(x.arrays)))
        if isinstance(x, TensorDescriptor):
            x.check()
            parts = (tuple(map(int, p)) for p in (x.shape, x.strides, x.block_shape))
            return Described(self.spec(name, x.base, values), *parts)
        if isinstance(x, (tuple, list)):
            return tuple(self.spec(f"{name}[{n}]", y, values) for n, y in enumerate(x))
        if isinstance(x, (bool, int, np.integer, np.bool_)):
            return bool(x) if isinstance(x, (bool, np.bool_)) else Specialized(x)
        if isinstance(x, (float, np.floating)):
            values.append(np.float32(x))
            return Scalar()
        if x is None or isinstance(x, (str, ty.DType, JitFunction)):
            return x
        if not is_array(x) and hasattr(x, "block_shape"):
            hint = "tilewright.TensorDescriptor.from_tensor(x, block_shape)"
            raise RuntimeFailure(f"launch of {self.definition.name}: {name} is a {type(x).__module__}.{type(x).__name__}", hint=hint)
        array = as_numpy(x, f"{name} of {self.definition.name}")
        if any(s < 0 or s % array.itemsize for s in array.strides):
            raise RuntimeFailure(
                f"{name} of {self.definition.name} has strides {array.strides}: they are negative or no multiples of an element",
                hint="pass numpy.ascontiguousarray(x)",
            )
        brain = array.dtype == np.uint16 and "bfloat16" in str(getattr(x, "dtype", ""))  # NumPy has no name for it
        dtype = ty.bf16 if brain else _element_type(array.dtype)
        for n, other in enumerate(values):
            if isinstance(other, np.ndarray) and array.size and _memory(array) == _memory(other):
                values.append(None)
                return Same(dtype, n)
        values.append(array)
        return Array(dtype, array.shape, tuple(s // array.itemsize for s in array.strides))

    def read(self, specs: Mapping[str, Spec], grid: tuple[int, ...]) -> tuple[Function, list[Array | int | None]]:
        """Block IR and, for each of its arguments, the array behind it (None: a scalar; a number: an earlier argument)."""
        parameters: list[tuple[str, BlockType]] = []
        arrays: list[Array | int | None] = []

        def declare(name: str, s: Spec) -> None:
            if isinstance(s, (tuple, Addresses)) and name not in self.constexprs:
                for n, part in enumerate(s.arrays if isinstance(s, Addresses) else s):
                    declare(f"{name}_{n}", part)
            elif isinstance(s, Described):
                declare(name, s.base)
            elif isinstance(s, (Array, Same, Scalar)):
                parameters.append((name, BlockType(s.dtype) if isinstance(s, Scalar) else pointer_type(s.dtype)))
                arrays.append(s.number if isinstance(s, Same) else s if isinstance(s, Array) else None)

        for name, s in specs.items():
            declare(name, s)
        builder = Builder(self.definition.name, parameters, grid)
        left = iter(builder.arguments)

        def value(name: str, s: Spec) -> Any:
            if isinstance(s, tuple) and name not in self.constexprs:
                return tuple(value(name, part) for part in s)
            if isinstance(s, Described):
                return Descriptor(next(left), tuple(map(Specialized, s.shape)), tuple(map(Specialized, s.strides)), s.block)
            if isinstance(s, Addresses):
                return Table(tuple(value(name, part) for part in s.arrays))
            if isinstance(s, Array) and s.contents is not None:
                return Known(next(left), s.contents)
            return next(left) if isinstance(s, (Array, Same, Scalar)) else s

        named: dict[str, Value | Any] = {name: value(name, s) for name, s in specs.items()}
        function = read(self.definition, builder, named)
        written = stored_arguments(function)
        stale = {n for n, v in named.items() if isinstance(v, Known) and v.pointer.name in written}
        if stale:  # what is there changes while the programs run
            return self.read({n: replace(s, contents=None) if n in stale else s for n, s in specs.items()}, grid)
        return function, arrays


def _with_contents(specs: Mapping[str, Spec], named: Mapping[str, Any]) -> dict[str, Spec]:
    """``specs`` with the contents of small dense arrays of integers: what a launch with addresses finds beside them."""
    twice = any(isinstance(s, Same) for spec in specs.values() for s in (spec.arrays if isinstance(spec, Addresses) else (spec,)))

    def known(name: str, s: Spec) -> Spec:
        if not isinstance(s, Array) or not s.dtype.is_int or s.elements > KNOWN or twice:
            return s
        x = as_numpy(named[name], name)
        return replace(s, contents=tuple(x.reshape(-1).tolist())) if x.flags.c_contiguous else s

    return {name: known(name, s) for name, s in specs.items()}


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array of any package."""
    return isinstance(x, np.ndarray) or hasattr(x, "__dlpack__")


@lru_cache(maxsize=32)
def _element_type(dtype: np.dtype) -> ty.DType:
    return ty.from_numpy(dtype)


def _memory(x: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...], str]:
    return x.__array_interface__["data"][0], x.shape, x.strides, x.dtype.str


def _key(s: Spec) -> Any:
    if isinstance(s, tuple):
        return tuple(map(_key, s))
    return (type(s).__name__, id(s) if isinstance(s, JitFunction) else repr(s) if isinstance(s, (list, dict, set)) else s)


def _grid(grid: Any, named: dict[str, Any], name: str) -> tuple[int, ...]:
    sizes = grid(named) if callable(grid) else grid
    sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
    if not 1 <= len(sizes) <= 3 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0 for n in sizes):
        raise RuntimeFailure(f"launch of {name}: {sizes!r} is not a grid", hint="one to three integers: kernel[(8, 4)](...)")
    return tuple(int(n) for n in sizes)


def _module(kernel: Kernel, otherwise: Callable[[], Kernel], machine: Machine | None) -> tuple[Kernel, Any]:
    """``kernel`` scheduled and built, or what ``otherwise`` makes when that would need too much memory."""
    if machine is not None and has_words(machine):
        from tilewright.runtime.accelerated import Accelerated

        return kernel, Accelerated(kernel, machine)
    if machine is not None and not machine.vector_bits:
        raise RuntimeFailure(
            f"kernel {kernel.name}: {machine.name} is neither a processor nor simulated here",
            hint=f"f.kernel(grid, ...) is its kernel: tilewright opt --machine {machine.name} prints code",
        )
    from tilewright.runtime.module import build
    from tilewright.runtime.pool import default_threads
    from tilewright.space.default import default_schedule

    threads = default_threads()
    scheduled = default_schedule(kernel, machine, threads=threads)
    if sum(b.nbytes for b in allocated(scheduled.kernel)) > WORKSPACE:
        kernel = otherwise()
        scheduled = default_schedule(kernel, machine, threads=threads)
    return kernel, build(scheduled, machine)


def _passed(x: Any, shape: tuple[int, ...]) -> Any:
    """The memory of ``x`` as a dense array of ``shape``, without copying."""
    if not isinstance(x, np.ndarray) or x.shape == shape == () or (x.shape == shape and x.flags.c_contiguous):
        return x
    count = int(np.prod(shape))
    flat = np.lib.stride_tricks.as_strided(x, (count,), (x.itemsize,), writeable=x.flags.writeable)
    return flat.reshape(shape)


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make ``function`` a block program, written with :mod:`tilewright.language` and launched as ``function[grid](...)``.

    ``options`` say how other hardware compiles it (:data:`JIT_OPTIONS`); LanguageError names one that is none of these.
    """
    unknown = [o for o in options if o not in JIT_OPTIONS]
    if unknown:
        raise LanguageError(f"jit has no option {unknown[0]!r}", hint=f"accepted, without effect here: {', '.join(JIT_OPTIONS)}")
    return jit if function is None else JitFunction(function)


def cdiv(x: int, y: int) -> int:
    """``x / y`` rounded up."""
    return -(-x // y)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is not less than ``n``."""
    return 1 << max(n - 1, 0).bit_length()
