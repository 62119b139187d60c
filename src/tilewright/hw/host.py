"""The computer this process runs on, found without asking the user.

Facts come from /proc and sysfs; where those are missing (other systems, containers) typical
values stand in, and the machine's note says so. Features come from LLVM, which is only loaded when a machine is asked for.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine
    from tilewright.hw.memory import Memory

CPUINFO = Path("/proc/cpuinfo")
CPU_DIRECTORY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Cache:
    """A data or unified cache: level, bytes of one instance, line bytes, how many of our cores share it."""

    level: int
    bytes: int
    line: int
    shared_by: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found. ``cores`` are the CPUs this process may use; ``guessed`` names facts that were not found."""

    architecture: str
    vendor: str
    family: int
    model: int
    cpu: str
    triple: str
    features: frozenset[str]
    cores: int
    clock_hz: float
    caches: tuple[Cache, ...]
    memory_bytes: int | None
    guessed: tuple[str, ...] = ()

    def cache(self, level: int) -> Cache | None:
        """The cache of ``level``, None if there is none."""
        return next((c for c in self.caches if c.level == level), None)


@cache
def host() -> Machine:
    """The host as a machine: the first library file whose ``on_host(facts)`` accepts it, else a plain scalar machine.

    Found once per process.
    """
    from tilewright.hw.library import HOSTS
    from tilewright.hw.load import library_modules

    facts = host_facts()
    likely = HOSTS.get(facts.architecture)
    for name in sorted(library_modules(), key=lambda n: n.rpartition(".")[2] != likely):
        on_host = getattr(importlib.import_module(name), "on_host", None)
        if on_host is not None and (machine := on_host(facts)) is not None:
            return machine
    return _scalar(facts)


@cache
def host_facts() -> HostFacts:
    """Facts about this computer (found once per process)."""
    import llvmlite.binding as llvm

    info = parse_cpuinfo(CPUINFO.read_text()) if CPUINFO.is_file() else {}
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    guessed = []
    caches = read_caches(CPU_DIRECTORY, allowed)
    if not any(c.level == 1 for c in caches):
        guessed.append("caches")
        caches = (Cache(1, 32 << 10, 64, 1), Cache(2, 1 << 20, 64, 1))
    clock = read_clock(CPU_DIRECTORY, info)
    if not clock:
        guessed.append("clock")
    features = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    return HostFacts(
        architecture=platform.machine(),
        vendor=info.get("vendor_id", ""),
        family=_int(info.get("cpu family")),
        model=_int(info.get("model")),
        cpu=llvm.get_host_cpu_name(),
        triple=llvm.get_process_triple(),
        features=features,
        cores=len(allowed),
        clock_hz=clock or 2.5e9,
        caches=caches,
        memory_bytes=_memory_bytes(),
        guessed=tuple(guessed),
    )


def measured(declared: Sequence[Memory], facts: HostFacts) -> list[Memory]:
    """The memories of a CPU with the sizes, lines and sharing that were found, without the caches it does not have."""
    out = []
    for mem in declared:
        if mem.kind == "cache":
            if (found := facts.cache(mem.level)) is None:
                continue
            mem = replace(mem, bytes=found.bytes, line=found.line, per="core" if found.shared_by == 1 else "chip")
        elif mem.kind == "main":
            mem = replace(mem, bytes=facts.memory_bytes)
        out.append(mem)
    parents = {mem.name: mem.parent for mem in declared}
    kept = {mem.name for mem in out}

    def outer(name: str | None) -> str | None:
        while name is not None and name not in kept:
            name = parents[name]
        return name

    return [replace(mem, parent=outer(mem.parent)) for mem in out]


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The keys of the first processor in /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, sep, value in pairs if sep}


def read_caches(directory: Path, allowed: list[int]) -> tuple[Cache, ...]:
    """Data and unified caches of the first allowed CPU, by level; empty where sysfs does not tell."""
    found = []
    for d in sorted(directory.glob(f"cpu{allowed[0]}/cache/index*")):
        try:
            if (d / "type").read_text().strip() == "Instruction":
                continue
            shared = cpu_list((d / "shared_cpu_list").read_text()) & set(allowed)
            line = int((d / "coherency_line_size").read_text())
            found.append(Cache(int((d / "level").read_text()), size_bytes((d / "size").read_text()), line, max(len(shared), 1)))
        except (OSError, ValueError):
            continue  # a hypervisor may leave out files: that cache is unknown
    return tuple(sorted(found, key=lambda c: c.level))


def read_clock(directory: Path, info: dict[str, str]) -> float:
    """Highest clock in Hz: the frequency driver's limit, else what /proc/cpuinfo shows now, else 0.

    Under a hypervisor that is the nominal clock: the real one may be higher, and measured rates
    may then exceed ``Machine.peak_ops``.
    """
    try:
        return int((directory / "cpu0/cpufreq/cpuinfo_max_freq").read_text()) * 1e3
    except (OSError, ValueError):
        return float(info.get("cpu MHz", 0)) * 1e6


def cpu_list(text: str) -> set[int]:
    """``"0-2,5"`` -> {0, 1, 2, 5}."""
    out: set[int] = set()
    for part in text.strip().split(","):
        lo, _, hi = part.partition("-")
        out |= set(range(int(lo), int(hi or lo) + 1))
    return out


def size_bytes(text: str) -> int:
    """``"32K"`` -> 32768."""
    m = re.fullmatch(r"(\d+)([KMG]?)B?\s*", text.strip())
    if m is None:
        raise ValueError(f"{text!r} is not a size")
    return int(m[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[m[2]]


def _int(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _scalar(facts: HostFacts) -> Machine:
    from tilewright.hw.machine import Machine, Target
    from tilewright.hw.memory import Memory
    from tilewright.hw.unit import Unit

    memories = [Memory("dram", "main", facts.memory_bytes, level=10)]
    parent = "dram"
    for c in reversed(facts.caches):
        per = "core" if c.shared_by == 1 else "chip"
        memories.append(Memory(f"l{c.level}", "cache", c.bytes, level=c.level, parent=parent, line=c.line, per=per))
        parent = f"l{c.level}"
    memories.append(Memory("reg", "register", 32 * 16, level=0, parent=parent, per="core"))
    return Machine(
        "host",
        memories=memories,
        units=[Unit("core", facts.cores)],
        target=Target(facts.triple, facts.cpu, tuple(sorted(facts.features))),
        clock_hz=facts.clock_hz,
        vector_bits=128,
        note=f"no machine of the library describes {facts.architecture}: plain loops are generated",
    )
