"""The part of ELF that loading and explaining a bare-metal RV64 program needs: segments, entry, symbols."""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

from tilewright.util.errors import ExecutionError

_LOAD, _SYMBOLS, _RISCV = 1, 2, 243
_WRITABLE, _EXECUTABLE = 2, 1


@dataclass(frozen=True, slots=True)
class Segment:
    """``data`` at ``address``, followed by zeros up to ``size`` bytes."""

    address: int
    size: int
    data: bytes
    writable: bool
    executable: bool


@dataclass(frozen=True, slots=True)
class Image:
    """A program as it is put in memory. ``symbols``: (address, name), sorted."""

    entry: int
    segments: tuple[Segment, ...]
    symbols: tuple[tuple[int, str], ...]

    def symbol(self, name: str) -> int | None:
        """The address of ``name``, None if the program has no such symbol."""
        return next((a for a, n in self.symbols if n == name), None)

    def place(self, address: int) -> str:
        """``function+0x12`` for an address inside the program, else the number."""
        inside = any(s.address <= address < s.address + s.size for s in self.segments)
        at = bisect_right(self.symbols, (address, "\x7f")) - 1
        if not inside or at < 0:
            return f"{address:#x}"
        start, name = self.symbols[at]
        return name if start == address else f"{name}+{address - start:#x}"


def read_elf(data: bytes) -> Image:
    """The image in an ELF file; ExecutionError unless it is a statically linked little-endian RV64 executable."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ExecutionError("not a 64-bit little-endian ELF file", hint="build it with tilewright.sim.riscv.compile_program")
    try:
        return _image(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ExecutionError(f"the ELF file is cut off or corrupt: {error}") from None


def _image(data: bytes) -> Image:
    kind, arch, _, entry, segments_at, sections_at = struct.unpack_from("<HHIQQQ", data, 16)
    if (kind, arch) != (2, _RISCV):
        raise ExecutionError(f"the ELF file is of type {kind} for architecture {arch}, not an executable (2) for RISC-V ({_RISCV})")
    size, count, section_size, sections = struct.unpack_from("<HHHH", data, 54)
    found = []
    for i in range(count):
        kind, flags, offset, address, _, filled, total, _ = struct.unpack_from("<IIQQQQQQ", data, segments_at + i * size)
        if kind == _LOAD and total:
            contents = data[offset : offset + filled]
            if len(contents) != filled:
                raise ExecutionError(f"the ELF file is cut off: segment {i} lacks {filled - len(contents)} bytes")
            found.append(Segment(address, total, contents, bool(flags & _WRITABLE), bool(flags & _EXECUTABLE)))
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * section_size) for i in range(sections)]
    symbols: list[tuple[int, str]] = []
    for header in headers:
        if header[1] == _SYMBOLS:
            names = headers[header[6]][4]
            symbols += _symbols(data, header[4], header[5], names)
    return Image(entry, tuple(found), tuple(sorted(symbols)))


def _symbols(data: bytes, start: int, size: int, names: int) -> list[tuple[int, str]]:
    """Named symbols of code and data (not of files, sections, or the mapping symbols of the assembler)."""
    out = []
    for at in range(start, start + size, 24):
        name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, at)
        text = data[names + name : data.index(b"\0", names + name)].decode()
        if text and section and info & 15 < 3 and not text.startswith((".L", "$")):
            out.append((value, text))
    return out
