"""A machine as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tilewright.hw.instruction import Instruction
from tilewright.hw.memory import Memory

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine


def describe(m: Machine) -> str:
    """The whole machine: memory tree with sizes and bandwidths, units, instructions, transfers, states."""
    lines = [f"machine {m.name}: {m.cores} x {m.units[0].name} at {m.clock_hz / 1e9:g} GHz"]
    if m.target.triple:
        lines.append(f"  target {m.target.triple} {m.target.cpu}".rstrip())
    if m.note:
        lines.append(f"  {m.note}")
    lines += ["  memories", *_tree(m, m.main_memory, "    ")]
    lines.append("  units")
    lines += [f"    {u.name} x {u.count}" + (f" in each {u.parent}" if u.parent else "") for u in m.units]
    lines.append("  instructions")
    lines += [f"    {line}" for i in m.instructions for line in describe_instruction(i)]
    if m.transfers:
        lines.append("  transfers")
        lines += [f"    {t.name}: {t.src} -> {t.dst}" + (f", {t.granularity} B steps" if t.granularity > 1 else "") for t in m.transfers]
    if m.states:
        lines.append("  states")
        for s in m.states:
            lines.append(f"    {s.name}: {', '.join(f'{n}: {t}' for n, t in s.fields)} (set by {s.setter})")
    return "\n".join(lines)


def describe_instruction(i: Instruction) -> list[str]:
    """Signature, axes and conditions of an instruction, one line each."""
    lines = [f"{i}  latency {i.latency:g}, {i.per_cycle:g}/cycle"]
    if i.axes:
        lines.append("  axes " + "  ".join(f"{a.name}={a.rule}{'+' if a.is_reduction else ''}" for a in i.axes))
    conditions = [str(c) for c in i.constraints] + [f"needs {n.state}" for n in i.needs]
    if i.requires.features:
        conditions.append(f"requires {i.requires}")
    if conditions:
        lines.append("  " + "; ".join(conditions))
    return lines


def size_text(nbytes: int | None) -> str:
    """``32 KiB``, ``unlimited``."""
    if nbytes is None:
        return "unlimited"
    size, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:g} {units[0]}"


def _tree(m: Machine, mem: Memory, indent: str) -> Iterator[str]:
    rate = m.bandwidth(mem.name)
    parts = [mem.kind, size_text(mem.bytes), f"per {mem.per}"] + ([f"{rate:.3g} B/cycle"] if rate else [])
    yield f"{indent}{mem.name}: {', '.join(parts)}"
    for child in m.children(mem.name):
        yield from _tree(m, child, indent + "  ")
