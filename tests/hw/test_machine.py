"""A machine checks itself: every contradiction is refused with the object, the rule and the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tilewright.hw import Instruction, Machine, Memory, State, Transfer, Unit, axes, instruction, list_machines, load_machine, needs
from tilewright.hw import value_range as value_range
from tilewright.ir.types import f32, i8, i32, u8
from tilewright.util.errors import MachineError

DRAM = Memory("dram", "main", None, level=2, bandwidth=16e9, bandwidth_unit="B/s")
SPAD = Memory("spad", "scratchpad", 4096, level=1, parent="dram", bandwidth=32, per="core")
REG = Memory("reg", "register", 256, level=0, parent="spad", per="core")
RGE = "rge"
CFG = State("cfg", (("mode", u8),), setter="set_mode")


@instruction(sets=CFG)
def set_mode():
    pass


@instruction(needs=needs(CFG, mode=1), per_cycle=0.25)
def dot(c: i32[4] @ REG, a: i8[4, 4] @ SPAD, b: i8[4] @ REG):
    i, k = axes(4, 4)
    c[i] += a[i, k] * b[k]


def build(**changes: Any) -> Machine:
    fields: dict[str, Any] = {
        "memories": [DRAM, SPAD, REG],
        "units": [Unit("core", 4), Unit("lane", 8, "core")],
        "instructions": [set_mode, dot],
        "transfers": [Transfer("dram", "spad", 16, latency=10, bandwidth=8)],
        "states": [CFG],
        "clock_hz": 1e9,
    }
    return Machine(changes.pop("name", "small"), **{**fields, **changes})


def with_memory(name: str, **changes: Any) -> dict[str, Any]:
    return {"memories": [replace(m, **changes) if m.name == name else m for m in (DRAM, SPAD, REG)]}


def too_large() -> Instruction:
    @instruction()
    def wide(c: f32[65] @ REG, a: f32[65] @ DRAM):
        i = axes(65)
        c[i] += a[i]

    return wide


def together_too_large() -> Instruction:
    @instruction()
    def wide(c: f32[40] @ REG, a: f32[40] @ REG):
        i = axes(40)
        c[i] += a[i]

    return wide


def out_of_bounds() -> Instruction:
    @instruction()
    def shifted(c: f32[4] @ REG, a: f32[4] @ REG):
        i = axes(4)
        c[i] += a[i + 1]

    return shifted


def in_unknown_memory() -> Instruction:
    @instruction()
    def lost(c: f32[4] @ RGE, a: f32[4] @ REG):
        i = axes(4)
        c[i] += a[i]

    return lost


def with_impossible_range() -> Instruction:
    @instruction()
    def ranged(c: i32[4] @ REG, a: i8[4] @ REG):
        i = axes(4)
        value_range(a, 0, 200)
        c[i] += a[i]

    return ranged


CONTRADICTIONS: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("name", lambda: {"name": "a/b"}, "machine name 'a/b'"),
    ("clock", lambda: {"clock_hz": 0}, "clock_hz is 0"),
    ("no main", lambda: with_memory("dram", kind="cache", bytes=1), "exactly one memory must be of kind 'main'"),
    ("kind", lambda: with_memory("spad", kind="sram"), "memory spad has kind 'sram'"),
    ("size", lambda: with_memory("spad", bytes=-1), "memory spad has -1 bytes"),
    ("capacity", lambda: with_memory("spad", bytes=None), "memory spad has no capacity"),
    ("bandwidth", lambda: with_memory("spad", bandwidth=-1), "bandwidth -1"),
    ("bandwidth unit", lambda: with_memory("spad", bandwidth_unit="GB/s"), "bandwidth in 'GB/s'"),
    ("line", lambda: with_memory("spad", line=0), "line 0"),
    ("per", lambda: with_memory("spad", per="warp"), "exists per 'warp', which is not a unit"),
    ("parent", lambda: with_memory("spad", parent="ddr"), "parent 'ddr', which is not declared"),
    ("orphan", lambda: with_memory("spad", parent=None), "memory spad of kind scratchpad has parent None"),
    ("cycle", lambda: with_memory("spad", parent="reg", level=0), "level 0"),
    ("self", lambda: with_memory("spad", parent="spad"), "cycle: spad -> spad"),
    ("level", lambda: with_memory("reg", level=3), "memory reg at level 3 is filled from spad at level 1"),
    ("twice", lambda: {"memories": [DRAM, SPAD, SPAD, REG]}, "two memory declarations are called 'spad'"),
    ("no unit", lambda: {"units": []}, "per 'core', which is not a unit"),
    ("unit count", lambda: {"units": [Unit("core", 0)]}, "unit core has count 0"),
    ("unit parent", lambda: {"units": [Unit("core", 1, "chiplet")]}, "inside 'chiplet', which is not declared"),
    ("unit cycle", lambda: {"units": [Unit("core", 1, "lane"), Unit("lane", 1, "core")]}, "units contain each other: core -> lane -> core"),
    ("unit memory", lambda: {"units": [Unit("core", 1, memory="l2")]}, "shares memory 'l2'"),
    ("operand size", lambda: {"instructions": [set_mode, too_large()]}, "operand c has 260 bytes but reg holds 256"),
    ("operand sum", lambda: {"instructions": [set_mode, together_too_large()]}, "operands in reg take 320 bytes"),
    ("bounds", lambda: {"instructions": [set_mode, out_of_bounds()]}, "accesses 1..4 in dimension 0 of a, which has 4 elements"),
    ("operand memory", lambda: {"instructions": [set_mode, in_unknown_memory()]}, "operand c is in memory 'rge'"),
    ("range", lambda: {"instructions": [set_mode, with_impossible_range()]}, "exceeds what i8 can hold"),
    ("rate", lambda: {"instructions": [set_mode, replace(dot, per_cycle=0)]}, "per_cycle must be positive"),
    ("unit of instruction", lambda: {"instructions": [set_mode, replace(dot, unit="sm")]}, "runs on unit 'sm'"),
    ("instruction twice", lambda: {"instructions": [set_mode, dot, dot]}, "two instruction declarations are called 'dot'"),
    ("state", lambda: {"states": [], "instructions": [dot]}, "needs state 'cfg', which is not declared"),
    ("state value", lambda: {"instructions": [set_mode, replace(dot, needs=(needs(CFG, mode=256),))]}, "u8 cannot hold"),
    ("state field", lambda: {"instructions": [set_mode, replace(dot, needs=(needs(CFG, speed=1),))]}, "field 'speed' of state cfg"),
    ("setter missing", lambda: {"instructions": [dot]}, "setter 'set_mode', which is not an instruction"),
    ("setter of nothing", lambda: {"instructions": [replace(set_mode, sets=None), dot]}, "is the setter of state cfg but sets None"),
    ("sets unknown", lambda: {"states": [], "instructions": [set_mode]}, "sets state 'cfg', which is not declared"),
    ("transfer memory", lambda: {"transfers": [Transfer("dram", "l2")]}, "uses memory 'l2'"),
    ("granularity", lambda: {"transfers": [Transfer("dram", "spad", 64, 16)]}, "granularity 64 and largest move 16"),
]


@pytest.mark.parametrize(("changes", "message"), [c[1:] for c in CONTRADICTIONS], ids=[c[0] for c in CONTRADICTIONS])
def test_contradiction_is_refused(changes: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(MachineError) as caught:
        build(**changes())
    assert message in str(caught.value)


def test_errors_of_an_instruction_point_at_its_source() -> None:
    with pytest.raises(MachineError) as caught:
        build(instructions=[set_mode, too_large()])
    assert caught.value.location is not None and caught.value.location.file == __file__
    assert caught.value.hint == "shrink the tile"


def test_look_up_and_structure() -> None:
    m = build()
    assert m.memory("reg") == REG
    assert [x.name for x in m.path("reg")] == ["reg", "spad", "dram"]
    assert [x.name for x in m.children("dram")] == ["spad"]
    assert m.main_memory == DRAM
    assert m.cores == 4
    assert (m.instances("lane"), m.instances("chip")) == (32, 1)
    assert m.instruction("small/dot") is m.instruction("dot")
    assert m.instruction("dot").kernel.instruction == "small/dot"
    assert m.transfers_between("dram", "spad")[0].name == "dram->spad"
    for find in (m.memory, m.unit, m.instruction, m.state, m.transfer, m.family):
        with pytest.raises(MachineError, match=r"machine small has no .* 'nothing'"):
            find("nothing")


def test_rates_convert_between_cycles_and_seconds() -> None:
    m = build(clock_hz=2e9)
    assert m.bandwidth("dram") == 8
    assert m.bandwidth("spad") == 32
    assert SPAD.bytes_per_second(2e9) == 64e9
    assert m.peak_ops(i8) == 32 * 0.25 * 4 * 2e9
    assert m.peak_ops(f32) == 0


def test_derive_changes_only_what_is_named_and_checks_again() -> None:
    m = build()
    big = m.derive(name="big", memories={"spad": {"bytes": 8192}}, units={"core": {"count": 2}}, clock_hz=3e9)
    assert (big.memory("spad").bytes, big.cores, big.clock_hz) == (8192, 2, 3e9)
    assert big.memory("reg") == m.memory("reg")
    assert big.instruction("dot").kernel.instruction == "big/dot"
    assert m.memory("spad").bytes == 4096
    with pytest.raises(MachineError, match="has 0 bytes"):
        m.derive(memories={"spad": {"bytes": 0}})
    with pytest.raises(MachineError, match="has no colour"):
        m.derive(colour="red")
    with pytest.raises(MachineError, match="no field colour"):
        m.derive(memories={"spad": {"colour": "red"}})


def test_available_instructions_follow_the_features() -> None:
    m = load_machine("x86.vnni")
    assert "dpbusd" in {i.name for i in m.available(m.target.features)}
    assert "dpbusd" not in {i.name for i in m.available([f for f in m.target.features if f != "avx512vnni"])}


@pytest.mark.parametrize("name", list_machines())
def test_description_names_everything(name: str) -> None:
    m = load_machine(name)
    text = m.describe()
    for item in (*m.memories, *m.units, *m.instructions, *m.transfers, *m.states):
        assert f"{item.name}" in text


@pytest.mark.parametrize("name", list_machines())
def test_library_machine_survives_derive(name: str) -> None:
    m = load_machine(name)
    assert m.derive() == m
    assert m.name == name
