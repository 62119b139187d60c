"""Compiled kernels: build one, call it on arrays."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np

from tilewright.hw.machine import Machine
from tilewright.ir.outside import check_inside
from tilewright.ir.stmt import Kernel
from tilewright.runtime import jit
from tilewright.runtime.arguments import Packed, Prepared, prepare
from tilewright.runtime.cache import build_cache
from tilewright.runtime.memory import WorkspacePool
from tilewright.runtime.packing import pack
from tilewright.runtime.pool import default_pool, default_threads, parallel_for_address
from tilewright.runtime.signature import Parameter, Role, Signature, check_kernel, parameters_of, signature
from tilewright.runtime.target import Target, of_machine
from tilewright.util.errors import RuntimeFailure

_PARALLEL_FOR = "tw_parallel_for"


@dataclass(frozen=True, slots=True)
class Code:
    """Machine code of one kernel: object file, entry symbol, and the bytes of workspace a call needs.

    A call on n threads needs ``workspace + n * thread_workspace`` bytes. ``externals`` are the
    functions the object calls that it does not define.
    """

    symbol: str
    object: bytes
    workspace: int = 0
    thread_workspace: int = 0
    externals: tuple[str, ...] = ()

    def workspace_bytes(self, threads: int) -> int:
        """Bytes of workspace for a call on ``threads`` threads."""
        return self.workspace + threads * self.thread_workspace


class Module:
    """A compiled kernel, called like a function. Make one with :func:`build`.

    ``module(*arrays)`` takes either every argument in the kernel's order, or only the inputs (and
    in/out arguments): then outputs are allocated, 64-byte aligned, unless ``out=`` provides them.
    It returns the written arrays, one or a tuple. Arrays are NumPy's or any DLPack CPU tensors
    and are used in place; symbolic sizes follow from their shapes or are passed by name. Calls
    from several Python threads at once are safe.
    """

    __slots__ = ("_entry", "_library", "_llvm", "_pool", "_workspaces", "code", "kernel", "machine", "signature", "target", "threads")

    def __init__(
        self,
        kernel: Kernel,
        code: Code,
        *,
        machine: Machine | None = None,
        target: Target | None = None,
        threads: int | None = None,
        llvm: str | None = None,
        parameters: Signature | None = None,
    ):
        self.kernel = check_kernel(kernel)
        self.machine = machine
        self.target = target or of_machine(machine)
        self.target.require_host(f"kernel {kernel.name}")
        self.code = code
        self.threads = default_threads() if threads is None else threads
        self.signature = parameters or signature(kernel)
        self._llvm = llvm
        self._pool = default_pool(self.threads) if self.threads != 1 else None
        self._library = jit.load(code.object, [code.symbol], {_PARALLEL_FOR: parallel_for_address()})
        pointer = ctypes.c_void_p
        self._entry = self._library.function(code.symbol, None, pointer, pointer, pointer, pointer)
        self._workspaces = WorkspacePool(code.workspace_bytes(self.threads))

    @staticmethod
    def from_llvm(kernel: Kernel, text: str, symbol: str, *, workspace: int = 0, thread_workspace: int = 0, **options: Any) -> Module:
        """A module from LLVM IR text that defines ``void symbol(ptr args, ptr sizes, ptr workspace, ptr pool)``."""
        target = options.pop("target", None) or of_machine(options.get("machine"))
        code = Code(symbol, jit.assemble(text, target), workspace, thread_workspace)
        return Module(kernel, code, target=target, llvm=text, **options)

    def __call__(self, *arrays: Any, out: Any = None, **sizes: int) -> Any:
        """Run the kernel on ``arrays``; RuntimeFailure names the argument that does not fit and why."""
        return self.bind(*arrays, out=out, **sizes)()

    def bind(self, *arrays: Any, out: Any = None, **sizes: int) -> BoundCall:
        """The call ``module(*arrays, out=out)`` with its arguments checked once, to be repeated cheaply."""
        return BoundCall(self, prepare(self.signature, arrays, out, sizes))

    def pack(self, name: str, array: Any) -> Packed:
        """``array`` in the physical layout of argument ``name``, to be packed once and passed many times."""
        parameter = self.parameter(name)
        if parameter.buffer.layout is None:
            raise RuntimeFailure(f"argument {name} of {self.kernel.name} has no layout", hint="pass the array itself")
        source = np.asarray(array)
        return Packed(pack(source, parameter.buffer.layout), parameter.buffer.layout, source.shape)

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``."""
        for p in self.signature.parameters:
            if p.name == name:
                return p
        raise RuntimeFailure(f"{self.kernel.name} has no argument {name!r}", hint=str(self.signature))

    @property
    def symbol(self) -> str:
        """Name of the entry function in the object code."""
        return self.code.symbol

    @property
    def address(self) -> int:
        """Address of the entry function; valid as long as this module lives."""
        return self._library.address(self.code.symbol)

    @property
    def llvm(self) -> str:
        """The LLVM IR the kernel was compiled from."""
        if self._llvm is None:
            self._llvm = emit_kernel(self.kernel, self.machine).text
        return self._llvm

    def assembly(self) -> str:
        """The machine code as assembly text."""
        return jit.assembly(self.llvm, self.target)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the object file. It needs ``tw_parallel_for`` (see :mod:`tilewright.runtime.exporter`)."""
        with open(path, "wb") as file:
            file.write(self.code.object)

    def __repr__(self) -> str:
        return f"<Module {self.signature} for {self.target.cpu or self.target.triple}, {self.threads} threads>"


class BoundCall:
    """One call with fixed arrays: ``call()`` runs it again and returns the written arrays.

    Arguments with a layout are packed and unpacked on every run (pass :meth:`Module.pack`'s
    result to pack once). Only these and the run itself cost time, about a microsecond.
    """

    __slots__ = ("_arguments", "_entry", "_pool", "_prepared", "_result", "_sizes", "_workspaces", "arguments", "module", "sizes")

    def __init__(self, module: Module, prepared: Prepared):
        self.module = module
        addresses = [a.__array_interface__["data"][0] for a in prepared.physical]
        self.arguments = (ctypes.c_void_p * len(addresses))(*addresses)
        self.sizes = (ctypes.c_int64 * len(prepared.sizes))(*prepared.sizes)
        self._arguments = ctypes.addressof(self.arguments)
        self._sizes = ctypes.addressof(self.sizes)
        self._prepared = prepared
        self._entry = module._entry
        self._pool = module._pool
        self._workspaces = module._workspaces if module._workspaces.nbytes else None
        self._result = prepared.result

    def __call__(self) -> Any:
        for array, layout, packed in self._prepared.packs:
            pack(array, layout, packed)
        pool = self._pool.handle if self._pool else None
        if self._workspaces is None:
            self._entry(self._arguments, self._sizes, None, pool)
        else:
            space = self._workspaces.take()
            try:
                self._entry(self._arguments, self._sizes, space[0], pool)
            finally:
                self._workspaces.give(space)
        if self._prepared.unpacks:
            self._prepared.unpack_all()
        return self._result


def build(
    kernel: Any, machine: Machine | None = None, *, threads: int | None = None, cache: bool = True, outputs: Sequence[str] | None = None
) -> Module:
    """Compile ``kernel`` (a Kernel, or a Schedule) for ``machine`` (default: this host).

    The kernel is compiled as it stands: schedule it first for speed. ``threads`` is the number of
    threads its parallel loops use (default: TILEWRIGHT_THREADS or all processors). ``cache=False``
    compiles afresh. ``outputs`` names the arguments that calls need not provide, when the kernel is
    too involved to derive them. Raises CodegenError for what the backend cannot emit,
    ExecutionError for an access that surely leaves its array (in loops of constant bounds, under no condition; :func:`check` finds the
    others) and RuntimeFailure for a bad request.
    """
    if not isinstance(kernel, Kernel) and isinstance(getattr(kernel, "kernel", None), Kernel):
        kernel, machine = kernel.kernel, machine or kernel.machine
    program = check_kernel(kernel)
    machine = machine or Machine.host()
    target = of_machine(machine)
    target.require_host(f"kernel {program.name} for machine {machine.name}")
    code, parameters = _compile(program, machine, target, cache, outputs)
    return Module(program, code, machine=machine, target=target, threads=threads, parameters=parameters)


def assembled(kernel: Kernel, machine: Machine, target: Target) -> Code:
    """The machine code of a scheduled kernel for the processor ``target`` of ``machine``."""
    emitted = emit_kernel(kernel, machine)
    return Code(emitted.symbol, jit.assemble(emitted.text, target), emitted.workspace, emitted.thread_workspace, tuple(emitted.externals))


def _compile(kernel: Kernel, machine: Machine, target: Target, cached: bool, outputs: Sequence[str] | None) -> tuple[Code, Signature]:
    """Code and signature, from the build cache when an equal kernel was compiled for an equal machine."""
    from tilewright.runtime.fingerprint import machine_fingerprint

    store = build_cache() if cached else None
    key = store.key("kernel", kernel, machine_fingerprint(machine), target, outputs) if store else ""
    if store and (entry := store.load(key)) is not None:
        return _decode(entry, kernel)
    code = assembled(kernel, machine, target)
    parameters = signature(kernel, outputs)
    if store:
        store.store(key, _encode(code, parameters))
    return code, parameters


def emit_kernel(kernel: Kernel, machine: Machine | None) -> Any:
    """The LLVM backend's ``Emitted`` for ``kernel`` on ``machine`` (None: this host); ExecutionError if it surely leaves an array."""
    from tilewright.codegen.llvm import emit

    check_inside(kernel)
    return emit(kernel, machine or Machine.host())


def _encode(code: Code, parameters: Signature) -> bytes:
    """A cache entry: one line of JSON, then the object file."""
    head: dict[str, Any] = {k: v for k, v in asdict(code).items() if k != "object"}
    head["roles"] = [(p.role.value, p.complete) for p in parameters.parameters]
    return json.dumps(head).encode() + b"\n" + code.object


def _decode(entry: bytes, kernel: Kernel) -> tuple[Code, Signature]:
    line, _, binary = entry.partition(b"\n")
    head: Mapping[str, Any] = json.loads(line)
    code = Code(head["symbol"], binary, head["workspace"], head["thread_workspace"], tuple(head["externals"]))
    return code, parameters_of(kernel, [(Role(role), complete) for role, complete in head["roles"]])
