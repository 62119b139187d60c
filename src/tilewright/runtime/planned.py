"""Default schedules, remembered: the search of a kernel's space is done once, and its result kept in the build cache.

An entry is the scheduled kernel as text with the decisions behind it. Its key holds what decides: the program, what of
it is constant, the threads, everything declared of the machine, and the sources of the rules and estimates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from tilewright.hw.machine import Machine
from tilewright.ir import stmt as st
from tilewright.ir.stmt import Call, Kernel
from tilewright.lang import parse
from tilewright.runtime.cache import BuildCache, build_cache
from tilewright.runtime.fingerprint import decisive_fingerprint
from tilewright.runtime.pool import default_threads
from tilewright.space.default import Decision, plan
from tilewright.space.version import deciding
from tilewright.util.errors import TilewrightError


@dataclass(frozen=True, slots=True)
class Planned:
    """A kernel as the default rules schedule it, their ``decisions``, and what primitives ``refused``."""

    kernel: Kernel
    decisions: tuple[Decision, ...]
    refused: tuple[str, ...]


def planned(
    kernel: Kernel, machine: Machine | None = None, *, threads: int | None = None, constants: Iterable[str] = (), cache: bool = True
) -> Planned:
    """What :func:`tilewright.space.default.plan` makes of ``kernel``, from the build cache when it was asked for before.

    Errors are those of ``plan``. ``cache=False`` searches afresh. An entry that cannot be read is made again.
    """
    machine, threads, constants = machine or Machine.host(), threads or default_threads(), sorted(set(constants))
    store = build_cache() if cache and not _calls(kernel) else None
    key = store.key("schedule", deciding(), kernel, constants, threads, decisive_fingerprint(machine)) if store else ""
    if store and (found := _remembered(store, key, machine)) is not None:
        return found
    made = plan(kernel, machine, threads=threads, constants=constants)
    result = Planned(made.schedule.kernel, made.decisions, made.refused)
    if store:
        entry = _encoded(result)
        if _decoded(entry, machine) == result:  # it may call kernels that only this process knows
            store.store(key, entry)
    return result


def _calls(kernel: Kernel) -> bool:
    """Whether the program calls kernels: its text does not say what those do."""
    return any(isinstance(s, Call) for s in st.walk(kernel.body))


def _remembered(store: BuildCache, key: str, machine: Machine) -> Planned | None:
    entry = store.load(key)
    return None if entry is None else _decoded(entry, machine)


def _encoded(p: Planned) -> bytes:
    return json.dumps({"kernel": str(p.kernel), "decisions": [astuple(d) for d in p.decisions], "refused": p.refused}).encode()


def _decoded(entry: bytes, machine: Machine) -> Planned | None:
    """The entry, or None when it is none (of another version, say)."""
    try:
        data = json.loads(entry)
        kernel = parse(str(data["kernel"]), **{i.kernel.name: i.kernel for i in machine.instructions})
        return Planned(kernel, tuple(Decision(*map(str, d)) for d in data["decisions"]), tuple(map(str, data["refused"])))
    except (ValueError, TypeError, KeyError, TilewrightError):
        return None
