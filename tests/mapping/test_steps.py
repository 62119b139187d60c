"""Mappings as schedule steps: applied, recorded, replayed, and executed against the loop nest."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tilewright.hw import load_machine
from tilewright.ir import stmt as st
from tilewright.ir.types import f32, i8, i32, u8
from tilewright.mapping import find_mappings, operator_of
from tilewright.mapping import operators as ops
from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import MappingError

CASES = [
    ("x86.avx512", "fma_outer", (f32, f32, f32)),
    ("x86.vnni", "dpbusd", (u8, i8, i32)),
    ("x86.amx", "tdpbssd", (i8, i8, i32)),
    ("cuda.sm80", "wmma_s8.m8n32k16", (i8, i8, i32)),
    ("gemmini", "matmul", (i8, i8, i32)),
]


@pytest.mark.parametrize(("machine_name", "instr", "types"), CASES)
def test_steps_reach_the_instruction_and_replay(run, machine_name, instr, types):
    machine = load_machine(machine_name)
    kernel = ops.c2d(n=1, k=5, p=3, q=3, c=3, r=2, s=2, types=types)
    direct = run(kernel)["out"]
    found = find_mappings(operator_of(kernel), machine.instruction(instr))
    for m in (found[0], found[-1]):
        packed = m.lower(calls=False)
        assert np.array_equal(run(packed)["out"], direct)
        steps = json.loads(json.dumps(m.steps(machine)))  # plain data
        schedule = Schedule(packed, machine)
        for step in steps:
            schedule.apply(step["primitive"], **step["arguments"])
        calls = [s for s in st.walk(schedule.kernel.body) if isinstance(s, st.Call)]
        assert [c.kernel.name for c in calls] == [machine.instruction(instr).kernel.name]
        assert replay(packed, schedule.trace, machine).kernel == schedule.kernel
        assert np.array_equal(run(schedule.kernel)["out"], direct), str(m)


def test_results_stay_in_the_instructions_memory_over_reductions():
    machine = load_machine("x86.amx")
    kernel = ops.gmm(40, 40, 200, types=(i8, i8, i32))
    (m,) = find_mappings(operator_of(kernel), machine.instruction("tdpbssd"))
    steps = {s["arguments"].get("buffer"): s for s in m.steps(machine)}
    assert steps["out_packed"]["primitive"] == "cache_write" and steps["out_packed"]["arguments"]["loop"].startswith("j_outer")
    assert steps["a_packed"]["primitive"] == "cache_read" and steps["a_packed"]["arguments"]["loop"].startswith("k_l_outer")
    assert steps[None]["primitive"] == "tensorize"


def test_a_kernel_is_no_machine_instruction(shapes):
    (m,) = find_mappings(operator_of(ops.gmm(types=(i32, i32, i32))), shapes["mma"])
    with pytest.raises(MappingError, match=r"mma is a kernel, not a declared instruction"):
        m.steps(load_machine("x86.amx"))


def test_split_k_is_a_split_and_an_rfactor_of_the_packed_nest(run):
    machine = load_machine("cuda.sm80")
    kernel = ops.gmm(16, 16, 128, types=(i8, i8, i32))
    (m,) = find_mappings(operator_of(kernel), machine.instruction("wmma_s8.m16n16k16"))
    *caches, tensorize = m.steps(machine)
    trips = caches[-1]["arguments"]["loop"]  # the loop around the tile: 8 trips of the reduction axis
    schedule = Schedule(m.lower(calls=False), machine)
    outer, _ = schedule.apply("split", loop=trips, factor=4)
    _, _, update, _ = schedule.apply("rfactor", loop=outer)
    schedule.apply("parallel", loop=update)
    assert np.array_equal(run(schedule.kernel)["out"], run(kernel)["out"])
    assert tensorize["primitive"] == "tensorize"
