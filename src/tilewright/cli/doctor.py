"""``tilewright doctor``: what works on this computer, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from tilewright.cli.app import WRONG
from tilewright.cli.console import bytes_text, stdout, table
from tilewright.util.errors import TilewrightError
from tilewright.util.version import __version__

OK, NOTE, BROKEN = "ok", "note", "broken"
_COLOURS = {OK: "green", NOTE: "yellow", BROKEN: "red"}
#: Optional packages: what each is good for.
OPTIONAL = {
    "onnxruntime": "run --compare, bench",
    "torch": "bench against PyTorch",
    "openvino": "benchmarks against OpenVINO",
    "distributed": "tuning on other computers (tune --cluster, worker)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it is, what was seen, what to do."""

    subject: str
    state: str
    seen: str
    advice: str = ""


def doctor() -> None:
    """Check what works on this computer and say what to do about the rest.

    Exit code 3 when something that Tilewright needs is broken; notes are about what is optional.

    [bold]Examples[/]

      tilewright doctor

      TILEWRIGHT_CACHE=/fast/disk tilewright doctor
    """
    found = list(examine())
    out = table("", "what", "found", "to do")
    for f in found:
        out.add_row(f"[{_COLOURS[f.state]}]{f.state}[/]", f.subject, f.seen, f.advice)
    stdout().print(out)
    if any(f.state == BROKEN for f in found):
        raise typer.Exit(WRONG)


def examine() -> Iterator[Finding]:
    """All findings, in the order a person would look."""
    yield Finding("tilewright", OK, f"{__version__}, Python {platform.python_version()} at {sys.executable}")
    yield _system()
    for check in (_llvm, _machine, _threads, _cache, _kernel):
        yield _guarded(check)
    yield from map(_package, OPTIONAL)


def _guarded(check: Callable[[], Finding]) -> Finding:
    """What ``check`` finds; an error on the way is the finding."""
    try:
        return check()
    except TilewrightError as error:
        return Finding(check.__name__.strip("_"), BROKEN, error.message, error.hint or "")
    except (ImportError, OSError) as error:
        return Finding(
            check.__name__.strip("_"), BROKEN, f"{type(error).__name__}: {error}", "reinstall: pip install --force-reinstall tilewright"
        )


def _system() -> Finding:
    name = f"{platform.system()} {platform.machine()}"
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        return Finding("system", OK, name)
    return Finding("system", NOTE, name, "tested on Linux x86-64 only; elsewhere plain loops are generated")


def _llvm() -> Finding:
    import llvmlite
    import llvmlite.binding as llvm

    return Finding("LLVM", OK, f"{'.'.join(map(str, llvm.llvm_version_info))} (llvmlite {llvmlite.__version__})")


def _machine() -> Finding:
    from tilewright.hw import Machine
    from tilewright.hw.host import host_facts

    m, facts = Machine.host(), host_facts()
    caches = ", ".join(f"{x.name} {bytes_text(x.bytes)}" for x in m.memories if x.kind == "cache" and x.bytes)
    wide = [f for f in ("avx2", "fma", "avx512f", "avx512vnni", "avx512bf16", "amx-tile") if f in facts.features]
    seen = f"{facts.cpu}: {m.cores} cores, {m.vector_bits}-bit vectors, {caches}; {' '.join(wide) or 'no vector extensions'}"
    if facts.guessed:
        return Finding("machine", NOTE, seen, f"not found, typical values stand in: {', '.join(facts.guessed)}")
    return Finding("machine", OK, seen)


def _threads() -> Finding:
    from tilewright.runtime.pool import available_cpus, default_threads

    count, cpus = default_threads(), len(available_cpus())
    load = os.getloadavg()[0]
    seen = f"{count} by default, {cpus} processors, load {load:.1f}"
    if count > cpus:
        return Finding("threads", NOTE, seen, "more threads than processors slow each other down: lower TILEWRIGHT_THREADS")
    if load > cpus / 2:
        return Finding("threads", NOTE, seen, "others are using this computer: timings will be noisy")
    return Finding("threads", OK, seen)


def _cache() -> Finding:
    from tilewright.runtime.cache import build_cache

    i = build_cache().info()
    seen = f"{i.root}: {i.entries} entries, {bytes_text(i.bytes)} of at most {bytes_text(i.limit)}"
    existing = next(p for p in (i.root, *i.root.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return Finding(
            "build cache",
            NOTE,
            f"{seen}; not writable: {error.strerror}",
            "everything is compiled afresh each time: set TILEWRIGHT_CACHE to a writable directory",
        )
    return Finding("build cache", OK, seen + ("" if existing == Path(i.root) else " (made on first use)"))


def _kernel() -> Finding:
    """A small product, scheduled, compiled and checked against the reference semantics."""
    import time

    from tilewright.mapping.operators import build_operator
    from tilewright.runtime.module import build
    from tilewright.runtime.verify import check
    from tilewright.space.default import default_schedule

    kernel = build_operator("matmul", i=32, j=48, k=40)
    start = time.perf_counter()
    module = build(default_schedule(kernel), cache=False)
    spent = time.perf_counter() - start
    worst = max(check(module, kernel).worst.values())
    return Finding("a kernel", OK, f"scheduled, compiled and right in {spent * 1e3:.0f} ms (error {worst:.2g} of what is allowed)")


def _package(name: str) -> Finding:
    try:
        return Finding(name, OK, version(name))
    except PackageNotFoundError:
        return Finding(name, NOTE, "not installed", f"for {OPTIONAL[name]}: pip install {name}")
