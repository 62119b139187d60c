"""An emulated RV64 hart with a host: memory, the host-target interface, and a model behind the custom instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.sim.gemmini.memory import MainMemory
from tilewright.sim.riscv.elf import Image, read_elf
from tilewright.util.errors import ExecutionError, RuntimeFailure

#: What executes a custom word: (funct7, contents of rs1, contents of rs2).
Custom = Callable[[int, int, int], None]

_PAGE = 4096
_CUSTOM_3 = 0x7B
_ILLEGAL_INSTRUCTION = 2
_CAUSES = {0: "jumps to a misaligned address", 1: "fetches", 3: "stops at a breakpoint", 5: "reads", 7: "writes"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: its exit code, what it printed, and how many custom instructions it issued."""

    exit_code: int
    console: str
    custom: int


def execute(elf: bytes, memory: MainMemory, custom: Custom | None = None, *, timeout: float = 60.0) -> Outcome:
    """Runs a bare-metal program in ``memory`` until it tells the host its exit code.

    ``custom`` gets each custom-3 word and sees the program's memory as ``memory``. ExecutionError: the program does not fit, touches
    memory outside, executes what the hart lacks, breaks a rule of the accelerator (its message is kept), or runs longer than
    ``timeout`` seconds. RuntimeFailure: unicorn is not installed.
    """
    try:
        import unicorn
    except ImportError:
        hint = "pip install 'tilewright[riscv]'"
        raise RuntimeFailure("no RISC-V emulator: the package unicorn is not installed", hint=hint) from None
    image = read_elf(elf)
    _load(image, memory)
    hart = _Hart(unicorn, image, memory, custom)
    return hart.run(timeout)


def _load(image: Image, memory: MainMemory) -> None:
    for s in image.segments:
        start = s.address - memory.base
        if start < 0 or start + s.size > len(memory.data):
            raise ExecutionError(
                f"the program occupies {s.address:#x} to {s.address + s.size:#x}, "
                f"memory is {memory.base:#x} to {memory.base + len(memory.data):#x}",
                hint="give MainMemory a larger size",
            )
        memory.data[start : start + s.size] = 0
        memory.data[start : start + len(s.data)] = bytearray(s.data)


class _Hart:
    """One run. The hooks record why the run has to stop; :meth:`run` raises it."""

    def __init__(self, unicorn: Any, image: Image, memory: MainMemory, custom: Custom | None):
        from unicorn import riscv_const

        self.unicorn, self.registers, self.image, self.memory, self.custom = unicorn, riscv_const, image, memory, custom
        self.core = core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
        self.console = bytearray()
        self.issued = 0
        self.code: int | None = None
        self.error: ExecutionError | None = None
        if len(memory.data) % _PAGE:
            raise ExecutionError(f"a memory of {len(memory.data)} bytes is not a number of pages", hint=f"a multiple of {_PAGE}")
        core.mem_map_ptr(memory.base, len(memory.data), unicorn.UC_PROT_ALL, memory.data.ctypes.data)
        self._protect()
        core.hook_add(unicorn.UC_HOOK_INTR, self._trap)
        core.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._outside)
        self.tohost = image.symbol("tohost")
        if self.tohost is None:
            raise ExecutionError("the program has no symbol tohost: it could never tell its exit code", hint="link htif.c, or define it")
        core.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._to_host, begin=self.tohost, end=self.tohost + 7)
        core.hook_add(unicorn.UC_HOOK_MEM_READ, self._taken, begin=self.tohost, end=self.tohost + 7)

    def _protect(self) -> None:
        """Code and constants are not written: such a program is wrong."""
        for s in self.image.segments:
            start, end = s.address // _PAGE * _PAGE, -(-(s.address + s.size) // _PAGE) * _PAGE
            if not s.writable and not any(t.writable and t.address < end and start < t.address + t.size for t in self.image.segments):
                self.core.mem_protect(start, end - start, self.unicorn.UC_PROT_READ | (self.unicorn.UC_PROT_EXEC if s.executable else 0))

    def run(self, timeout: float) -> Outcome:
        try:
            self.core.emu_start(self.image.entry, 0, timeout=max(1, int(timeout * 1e6)))
        except self.unicorn.UcError as error:
            if self.error is None:
                self.error = ExecutionError(f"the emulator stops at {self._where()}: {error}")
        if self.error is not None:
            raise self.error
        if self.code is None:
            raise ExecutionError(
                f"the program did not end within {timeout:g} s; it is at {self._where()}" + self._printed(),
                hint="it loops for ever, or needs a longer timeout",
            )
        return Outcome(self.code, self.console.decode(errors="replace"), self.issued)

    def _where(self) -> str:
        return self.image.place(self.core.reg_read(self.registers.UC_RISCV_REG_PC))

    def _printed(self) -> str:
        return f"; it printed: {self.console.decode(errors='replace').strip()}" if self.console else ""

    def _stop(self, error: ExecutionError) -> None:
        self.error = self.error or error
        self.core.emu_stop()

    def _trap(self, core: Any, cause: int, _: Any) -> None:
        # unicorn has already stepped over the trapping word
        pc = core.reg_read(self.registers.UC_RISCV_REG_PC) - 4
        if cause != _ILLEGAL_INSTRUCTION:
            self._stop(ExecutionError(f"the program {_CAUSES.get(cause, f'traps with cause {cause}')} at {self._where()}"))
            return
        word = int.from_bytes(core.mem_read(pc, 4), "little")
        if word & 0x7F != _CUSTOM_3 or self.custom is None:
            what = f"illegal instruction {word:#010x}" if word & 0x7F != _CUSTOM_3 else "custom instruction, but nothing is behind it"
            self._stop(ExecutionError(f"{what} at {self._where()}", hint="check the target's features and the accelerator"))
            return
        self._issue(core, word)

    def _issue(self, core: Any, word: int) -> None:
        x0 = self.registers.UC_RISCV_REG_X0
        rs1, rs2 = (core.reg_read(x0 + (word >> at & 31)) for at in (15, 20))
        try:
            self.custom(word >> 25, rs1, rs2)  # type: ignore[misc]
        except ExecutionError as error:
            self._stop(ExecutionError(f"at {self._where()}: {error.message}{self._printed()}", hint=error.hint))
        self.issued += 1

    def _outside(self, core: Any, access: int, address: int, size: int, value: int, _: Any) -> bool:
        u = self.unicorn
        writes, fetches = (u.UC_MEM_WRITE_UNMAPPED, u.UC_MEM_WRITE_PROT), (u.UC_MEM_FETCH_UNMAPPED, u.UC_MEM_FETCH_PROT)
        verb = "writes" if access in writes else "fetches" if access in fetches else "reads"
        inside = self.memory.base <= address < self.memory.base + len(self.memory.data)
        rule = "which it may not" if inside else f"outside memory [{self.memory.base:#x}, {self.memory.base + len(self.memory.data):#x})"
        where = self.image.place(address)
        at = where if where.startswith("0x") else f"{where} ({address:#x})"
        self._stop(ExecutionError(f"the program {verb} {size} bytes at {at}, {rule}; it is at {self._where()}{self._printed()}"))
        return False

    def _to_host(self, core: Any, access: int, address: int, size: int, value: int, _: Any) -> None:
        """A command for the host: an exit code, or a character for the console."""
        value &= (1 << 64) - 1
        device, command, data = value >> 56, value >> 48 & 0xFF, value & (1 << 48) - 1
        if device == 0 and data & 1:
            self.code = data >> 1
            core.emu_stop()
        elif (device, command) == (1, 1):
            self.console.append(data & 0xFF)
        elif value:
            self._stop(
                ExecutionError(f"the program asks the host for device {device}, command {command}", hint="exit and console are served")
            )

    def _taken(self, core: Any, access: int, address: int, size: int, value: int, _: Any) -> None:
        """The host has taken the last command: the program reads zero."""
        assert self.tohost is not None
        core.mem_write(self.tohost, bytes(8))
