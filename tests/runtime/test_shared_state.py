"""What processes share on disk, the build cache and the records, while several use both and some are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tilewright.runtime.cache import BuildCache
from tilewright.runtime.records import RecordStore

#: Builds one of nine kernels through the cache, checks what it computes, and records that; until it is killed or has done 60.
USER = """
    import sys
    import numpy as np
    from tilewright.lang import parse
    from tilewright.runtime import build
    from tilewright.runtime.records import Record, RecordStore, Task

    name, store = sys.argv[1], RecordStore()
    for n in range(60):
        factor = n % 9 + 2
        kernel = parse(f"@kernel\\ndef scale(x: f32[64], y: f32[64]):\\n    for i in range(64):\\n        y[i] = x[i] * {factor}.0")
        x = np.arange(64, dtype=np.float32)
        assert np.array_equal(build(kernel, threads=1)(x), x * factor), "code of another kernel"
        store.add(Record(Task(str(kernel), "m", "m:1", 1), "ok", (float(n + 1),), author=name, seed=n))
        print(n, flush=True)
"""


@pytest.mark.slow
def test_tuners_share_cache_and_records_and_some_are_killed(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TILEWRIGHT_CACHE": str(tmp_path / "cache"),
        "TILEWRIGHT_RECORDS": str(tmp_path / "records.db"),
        "TILEWRIGHT_CACHE_LIMIT": "0",  # everything is evicted as soon as it is stored: readers and evictors meet all the time
    }
    rng, told = random.Random(3), dict[str, int]()

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(USER), name]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(name: str, process: subprocess.Popen[str]) -> str:
        out, errors = process.communicate(timeout=120)
        told[name] = len(out.splitlines())
        return errors

    running = {f"{n}": start(f"{n}") for n in range(3)}
    for turn in range(3):
        victim, process = running.popitem()
        time.sleep(rng.uniform(1.5, 3.0))
        process.send_signal(signal.SIGKILL)
        finish(victim, process)
        running[f"again{turn}"] = start(f"again{turn}")
    for name, process in running.items():
        errors = finish(name, process)
        assert process.returncode == 0, errors
        assert told[name] == 60
    with RecordStore(tmp_path / "records.db") as store:
        for name, count in told.items():
            kept = [r.seed for r in store.records() if r.author == name]
            assert kept == list(range(len(kept))) and count <= len(kept) <= count + 1
        assert len(store.tasks()) == 9
    cache = BuildCache(tmp_path / "cache")
    for path in tmp_path.glob("cache/*/*.entry"):
        assert cache.load(path.stem) is not None, "a torn entry"
