"""Host detection on recorded systems: facts in, machine out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.hw import Machine
from tilewright.hw import host as host_module
from tilewright.hw.host import Cache, HostFacts, cpu_list, host_facts, parse_cpuinfo, read_caches, read_clock, size_bytes
from tilewright.hw.library import arm, x86

ZEN4 = HostFacts(
    architecture="x86_64",
    vendor="AuthenticAMD",
    family=25,
    model=17,
    cpu="znver4",
    triple="x86_64-unknown-linux-gnu",
    features=frozenset((*x86.VNNI, "avx512bf16", "bmi2")),
    cores=6,
    clock_hz=3.7e9,
    caches=(Cache(1, 32 << 10, 64, 1), Cache(2, 1 << 20, 64, 1), Cache(3, 32 << 20, 64, 6)),
    memory_bytes=64 << 30,
)


def cache_directory(root: Path, index: int, **files: object) -> None:
    d = root / "cpu2" / "cache" / f"index{index}"
    d.mkdir(parents=True)
    for name, value in files.items():
        (d / name).write_text(f"{value}\n")


def test_caches_are_read_from_sysfs(tmp_path: Path) -> None:
    shared = {"coherency_line_size": 64}
    cache_directory(tmp_path, 0, level=1, type="Data", size="48K", shared_cpu_list="2,34", **shared)
    cache_directory(tmp_path, 1, level=1, type="Instruction", size="32K", shared_cpu_list="2,34", **shared)
    cache_directory(tmp_path, 2, level=2, type="Unified", size="2048K", shared_cpu_list="2,34", **shared)
    cache_directory(tmp_path, 3, level=3, type="Unified", size="60M", shared_cpu_list="0-31", **shared)
    found = read_caches(tmp_path, [2, 3, 4])
    assert found == (Cache(1, 48 << 10, 64, 1), Cache(2, 2 << 20, 64, 1), Cache(3, 60 << 20, 64, 3))


def test_incomplete_sysfs_leaves_the_cache_out(tmp_path: Path) -> None:
    cache_directory(tmp_path, 0, level=1, type="Data", size="32K", shared_cpu_list="2")
    assert read_caches(tmp_path, [2]) == ()
    assert read_caches(tmp_path / "absent", [0]) == ()


def test_texts_of_the_kernel() -> None:
    assert cpu_list("0-2,5\n") == {0, 1, 2, 5}
    assert size_bytes("1024K\n") == 1 << 20
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes("large")
    info = parse_cpuinfo("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 2100.5\n\nprocessor\t: 1\nvendor_id\t: other\n")
    assert (info["vendor_id"], info["processor"]) == ("GenuineIntel", "0")
    assert read_clock(Path("/absent"), info) == 2100.5e6


def test_zen4_gets_one_512_bit_port_and_its_dot_products() -> None:
    m = x86.on_host(ZEN4)
    assert m is not None
    assert (m.cores, m.vector_bits, m.target.cpu) == (6, 512, "znver4")
    assert m.instruction("fma").per_cycle == 1
    assert {"dpbusd", "dpbf16ps", "maddubs"} <= {i.name for i in m.instructions}
    assert (m.memory("l3").bytes, m.memory("l3").per, m.memory("l2").per) == (32 << 20, "chip", "core")
    assert m.memory("dram").bytes == 64 << 30


def test_without_avx512_the_machine_is_avx2() -> None:
    m = x86.on_host(replace(ZEN4, features=frozenset(x86.AVX2)))
    assert m is not None
    assert (m.vector_bits, m.memory("reg").bytes) == (256, 512)
    assert all(not i.requires.missing(frozenset(x86.AVX2)) for i in m.instructions)


def test_partial_avx512_is_not_enough() -> None:
    m = x86.on_host(replace(ZEN4, features=frozenset((*x86.AVX2, "avx512f"))))
    assert m is not None and m.vector_bits == 256


def test_host_without_l3_fills_l2_from_main_memory() -> None:
    m = x86.on_host(replace(ZEN4, caches=ZEN4.caches[:2]))
    assert m is not None
    assert [x.name for x in m.path("reg")] == ["reg", "l1", "l2", "dram"]
    assert {t.name for t in m.transfers} == {"dram->l2", "l2->dram", "l2->l1", "l1->l2", "l1->reg", "reg->l1"}
    assert m.unit("core").memory == "dram"


def test_other_architectures_are_left_to_other_files() -> None:
    other = replace(ZEN4, architecture="aarch64", features=frozenset(("neon",)), caches=ZEN4.caches)
    assert x86.on_host(other) is None
    m = arm.on_host(other)
    assert m is not None and [i.name for i in m.instructions] == ["fma"]
    assert arm.on_host(ZEN4) is None
    small = arm.on_host(replace(other, caches=ZEN4.caches[:1]))
    assert small is not None and [x.name for x in small.path("reg")] == ["reg", "l1", "dram"]


def test_unknown_architecture_is_a_scalar_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(ZEN4, architecture="s390x", features=frozenset())
    monkeypatch.setattr(host_module, "host_facts", lambda: odd)
    m = host_module.host.__wrapped__()
    assert m.instructions == () and m.cores == 6
    assert "no machine of the library describes s390x" in m.note


def test_this_host_is_consistent() -> None:
    m = Machine.host()
    assert m.cores == len(os.sched_getaffinity(0))
    facts = host_facts()
    assert set(m.target.features) == facts.features
    assert all(not i.requires.missing(facts.features) for i in m.instructions)
    assert m.clock_hz > 5e8
