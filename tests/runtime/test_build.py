"""From a kernel to a callable: code generation, cache and calls together."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tilewright.hw.machine import Machine, Target
from tilewright.ir.buffer import Layout
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel, replace_buffers, specialize
from tilewright.lang import parse
from tilewright.runtime import cache as cache_module
from tilewright.runtime import module as module_module
from tilewright.runtime.cache import build_cache
from tilewright.runtime.exporter import export
from tilewright.runtime.fingerprint import fingerprint, machine_fingerprint
from tilewright.runtime.module import build
from tilewright.runtime.sequence import Sequence, Step
from tilewright.runtime.verify import check
from tilewright.schedule.schedule import Schedule
from tilewright.util.errors import RuntimeFailure

GEMM = """
@kernel(params=("M", "N", "K"))
def gemm(a: f32[M, K], b: f32[K, N], c: f32[M, N]):
    for i in parallel(M):
        for j in range(N):
            c[i, j] = 0.0
            for k in range(K):
                c[i, j] += a[i, k] * b[k, j]
"""


def gemm(name: str = "gemm") -> Kernel:
    return parse(GEMM.replace("gemm", name))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("m", "n", "k"), [(5, 7, 9), (64, 48, 32), (1, 1, 1), (0, 4, 4), (4, 0, 4), (3, 5, 0)])
def test_symbolic_gemm(threads: int, m: int, n: int, k: int) -> None:
    a, b = random(m, k), random(k, n)
    module = build(gemm(), threads=threads)
    if k == 0:
        np.testing.assert_array_equal(module(a, b), np.zeros((m, n)))
    np.testing.assert_allclose(module(a, b), a @ b, rtol=1e-5)


def test_second_build_comes_from_the_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(gemm())
    monkeypatch.setattr(module_module, "emit_kernel", lambda *a: pytest.fail("compiled again"))
    again = build(gemm())
    assert again.code == first.code and again.signature == first.signature
    a, b = random(4, 5), random(5, 6)
    np.testing.assert_array_equal(again(a, b), first(a, b))


def test_other_programs_and_machines_are_other_entries(own_cache: Path) -> None:
    machine = Machine.host()
    build(gemm(), machine)
    entries = build_cache().info().entries
    build(gemm("gemm2"), machine)
    build(gemm(), _narrow(machine))
    assert build_cache().info().entries == entries + 2


def _narrow(machine: Machine, **changes: Any) -> Machine:
    fields = {f.name: getattr(machine, f.name) for f in dataclasses.fields(machine) if f.name != "loc"}
    return Machine(**{**fields, "vector_bits": 128, "instructions": (), **changes})


def test_no_cache_leaves_no_entry(own_cache: Path) -> None:
    build(gemm("first"))
    entries = build_cache().info().entries
    build(gemm("second"), cache=False)
    assert build_cache().info().entries == entries


def test_corrupt_entries_are_rebuilt(own_cache: Path) -> None:
    a, b = random(4, 5), random(5, 6)
    expected = build(gemm())(a, b)
    files = list(own_cache.rglob("*.entry"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    np.testing.assert_array_equal(build(gemm())(a, b), expected)
    assert all(file.stat().st_size > 100 for file in files if file.exists())


def test_full_disk_builds_uncached(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module.tempfile, "mkstemp", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        module = build(gemm("nospace"))
    a, b = random(4, 5), random(5, 6)
    np.testing.assert_allclose(module(a, b), a @ b, rtol=1e-5)


BUILDER = """
    import sys, numpy as np
    from tilewright.lang import parse
    from tilewright.runtime import build
    text = sys.stdin.read()
    for turn in range(12):
        module = build(parse(text.replace("gemm", f"gemm{turn}")), threads=1)
        a = np.ones((3, 4), np.float32)
        assert (module(a, a.T.copy()) == 4).all()
"""


def test_two_processes_build_the_same_kernels(own_cache: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(BUILDER)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        process.stdin.write(GEMM)
        process.stdin.close()
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr.read()
        process.stderr.close()
    store = build_cache()
    assert store.info().entries >= 12
    assert all(store.load(p.stem) is not None for p in own_cache.rglob("*.entry"))


def test_module_works_in_a_forked_child() -> None:
    module = build(gemm(), threads=2)
    a, b = random(64, 32), random(32, 48)
    expected = module(a, b)
    call = module.bind(a, b)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if np.array_equal(call(), expected) and np.array_equal(build(gemm(), threads=2)(a, b), expected) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64", "i8", "u8", "i16", "u32", "i64", "Int(5)", "UInt(12)"])
def test_element_types(dtype: str) -> None:
    kernel = parse(f"""
@kernel
def add(x: {dtype}[37], y: {dtype}[37], z: {dtype}[37]):
    for i in range(37):
        z[i] = x[i] + y[i]
""")
    report = check(build(kernel, threads=1), oracle=interpret)
    assert set(report.worst) == {"z"}


def test_bf16_arrays_of_ml_dtypes() -> None:
    kernel = parse("""
@kernel
def double(x: bf16[8], y: bf16[8]):
    for i in range(8):
        y[i] = x[i] + x[i]
""")
    x = np.arange(8).astype(ml_dtypes.bfloat16)
    y = np.zeros(8, ml_dtypes.bfloat16)
    build(kernel)(x, y)
    np.testing.assert_array_equal(y.astype(float), 2.0 * np.arange(8))


def test_layouts_are_applied() -> None:
    kernel = specialize(gemm(), M=6, N=7, K=5)
    b = replace(kernel.arg("b"), layout=Layout.parse("1/4 0 1"))
    packed = kernel.with_(args=tuple(b if x.name == "b" else x for x in kernel.args), body=replace_buffers(kernel.body, {"b": b}))
    module = build(packed, threads=1)
    x, w = random(6, 5), random(5, 7)
    np.testing.assert_allclose(module(x, w), x @ w, rtol=1e-5)
    np.testing.assert_array_equal(module(x, module.pack("b", w)), module(x, w))
    check(module, oracle=interpret)


def test_schedule_is_built_with_its_machine() -> None:
    kernel = specialize(gemm(), M=48, N=40, K=32)
    sch = Schedule(kernel, Machine.host())
    sch.split("i", 7, "guard")
    module = build(sch, threads=1)
    assert module.machine is sch.machine
    assert [p.role.value for p in module.signature.parameters] == ["in", "in", "out"]
    check(module, kernel, oracle=interpret, trials=1)


def test_sequence_of_compiled_kernels() -> None:
    """A two-layer network with a hidden value in the arena, on two threads."""
    module = build(gemm(), threads=2)
    sizes = {"M": 20, "N": 30, "K": 40}, {"M": 20, "N": 10, "K": 30}
    w1, w2, x, y = random(40, 30), random(30, 10), random(20, 40), np.empty((20, 10), np.float32)
    steps = [Step(module, ("x", "w1", "h"), sizes[0]), Step(module, ("h", "w2", "y"), sizes[1])]
    net = Sequence(steps, {"h": 0}, 20 * 30 * 4, constants={"w1": w1, "w2": w2}, external=["x", "y"], threads=2)
    net.run(x=x, y=y)
    np.testing.assert_allclose(y, x @ w1 @ w2, rtol=1e-5)
    assert len(net.profile()) == 2


def test_exported_gemm_runs_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    made = export(gemm(), tmp_path / "gemm.o")
    assert "args[2]  float c[M][N] (out)" in made.header.read_text()
    (tmp_path / "main.c").write_text("""
#include "gemm.h"
int main(void) {
    static float a[6][4], b[4][5], c[6][5];
    for (int i = 0; i < 24; i++) a[i / 4][i % 4] = i;
    for (int i = 0; i < 20; i++) b[i / 5][i % 5] = i % 3;
    void *args[] = { a, b, c };
    int64_t sizes[] = { 6, 5, 4 };
    void *pool = gemm_pool_create(2);
    if (gemm_workspace_bytes(2) != 0) return 9;
    gemm(args, sizes, 0, pool);
    gemm_pool_destroy(pool);
    for (int i = 0; i < 6; i++) for (int j = 0; j < 5; j++) {
        float s = 0;
        for (int k = 0; k < 4; k++) s += a[i][k] * b[k][j];
        if (s != c[i][j]) return 1;
    }
    return 0;
}
""")
    subprocess.run([compiler, "-Wall", "-Werror", "main.c", "gemm.o", "-o", "main", "-lm", "-pthread"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"], timeout=60, check=False).returncode == 0


def test_fingerprints_follow_content_not_identity() -> None:
    machine = Machine.host()
    same = _narrow(machine, vector_bits=machine.vector_bits, instructions=machine.instructions)
    assert same is not machine and fingerprint(same) == fingerprint(machine)
    faster = _narrow(machine, vector_bits=machine.vector_bits, instructions=machine.instructions, clock_hz=9e9)
    assert machine_fingerprint(faster) == machine_fingerprint(machine) != machine_fingerprint(_narrow(machine))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)

    def adder(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    made = [adder(1), adder(2), adder(1)]
    assert fingerprint(made[0]) == fingerprint(made[2]) != fingerprint(made[1])
    with pytest.raises(RuntimeFailure, match="no identity by content"):
        fingerprint(object())


def test_the_module_prints_its_code() -> None:
    module = build(gemm(), threads=1)
    assert "define void @gemm" in module.llvm
    assert "gemm:" in module.assembly()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target("aarch64-unknown-linux-gnu"), "kernel gemm for machine host is compiled for aarch64, this process runs on"),
        (Target(features=("avx2", "imaginary")), "is compiled for a processor with .*imaginary, which this one"),
    ],
)
def test_code_for_other_processors_is_not_run(target: Target, message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        build(gemm(), _narrow(Machine.host(), target=target))


@pytest.mark.parametrize("threads", [0, -2, "2"])
def test_bad_thread_counts(threads: Any) -> None:
    with pytest.raises(RuntimeFailure, match="threads is an int from 1"):
        build(gemm(), threads=threads)


def test_checked_against_the_fast_reference_at_size() -> None:
    report = check(build(gemm(), threads=2), sizes={"M": 60, "N": 50, "K": 70})
    assert 0 < report.worst["c"] < 1
