"""The build cache: what is read is what was written, and no fault of the disk stops a build."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest

from tilewright.runtime import cache as cache_module
from tilewright.runtime.cache import BuildCache, build_cache, cache_directory
from tilewright.util.errors import RuntimeFailure


def test_round_trip_and_info(tmp_path: Path) -> None:
    store = BuildCache(tmp_path)
    key = store.key("object", "text", "target")
    assert store.load(key) is None
    assert store.store(key, b"payload" * 100)
    assert store.load(key) == b"payload" * 100
    assert store.info().entries == 1 and store.info().bytes > 700
    assert store.clear() > 700
    assert store.load(key) is None and store.info().entries == 0


def test_keys_separate_parts_and_kinds() -> None:
    keys = {BuildCache.key("a", "bc"), BuildCache.key("ab", "c"), BuildCache.key("a", "b", "c"), BuildCache.key("a", "bc", "")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:20], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b + b"x"]
)
def test_damaged_entry_is_dropped(tmp_path: Path, damage) -> None:
    store = BuildCache(tmp_path)
    key = store.key("object", "x")
    store.store(key, b"0123456789" * 50)
    path = store.path(key)
    path.write_bytes(damage(path.read_bytes()))
    assert store.load(key) is None
    assert not path.exists()
    store.store(key, b"again")
    assert store.load(key) == b"again"


def test_evicts_least_recently_used(tmp_path: Path) -> None:
    store = BuildCache(tmp_path, limit=10_000)
    keys = [store.key("object", i) for i in range(12)]
    past = time.time() - 1000
    for i, key in enumerate(keys):
        store.store(key, bytes(1000))
        if store.path(key).exists():
            os.utime(store.path(key), (past + i, past + i))
        store.load(keys[0])  # the first stays in use
    assert store.info().bytes <= 10_000
    assert store.load(keys[0]) is not None
    assert store.load(keys[1]) is None
    assert store.load(keys[-1]) is not None


def test_abandoned_temporaries_are_removed(tmp_path: Path) -> None:
    store = BuildCache(tmp_path, limit=100)
    store.store(store.key("object", 0), b"x")
    folder = store.path(store.key("object", 0)).parent
    old, young = folder / "dead.tmp", folder / "alive.tmp"
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (1, 1))
    store.store(store.key("object", 1), bytes(500))
    assert not old.exists() and young.exists()


def test_full_disk_warns_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BuildCache(tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device.*TILEWRIGHT_CACHE"):
        assert store.store(store.key("object", 1), b"x") is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.store(store.key("object", 2), b"x") is False
    assert store.load(store.key("object", 1)) is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_really_full_file_system(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        store = BuildCache(mounted)
        assert store.store(store.key("object", 0), bytes(1000))
        with pytest.warns(RuntimeWarning, match="No space left"):
            assert store.store(store.key("object", 1), bytes(200_000)) is False
        assert store.load(store.key("object", 0)) == bytes(1000)
        assert store.load(store.key("object", 1)) is None
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = BuildCache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="building without it"):
        assert store.load(store.key("object", 1)) is None
        assert store.store(store.key("object", 1), b"x") is False


def test_clear_leaves_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.entry").write_text("mine")
    store = BuildCache(tmp_path)
    store.store(store.key("object", 1), b"x")
    store.clear()
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "sub" / "a.entry").exists()


WRITER = """
    import sys
    from pathlib import Path
    from tilewright.runtime.cache import BuildCache
    store = BuildCache(Path(sys.argv[1]), limit=40_000)
    me = int(sys.argv[2])
    for turn in range(300):
        name = (turn * 7 + me) % 40
        key = store.key("object", name)
        got = store.load(key)
        assert got is None or got == bytes([name]) * 2000, "torn or foreign entry"
        store.store(key, bytes([name]) * 2000)
"""


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    """Concurrent writers of the same keys, with eviction going on: every read is whole or absent."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WRITER), str(tmp_path)]
    running = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))


def test_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "a"))
    assert cache_directory() == tmp_path / "a"
    monkeypatch.delenv("TILEWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "tilewright"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "tilewright"
    monkeypatch.setenv("TILEWRIGHT_CACHE_LIMIT", "3")
    assert build_cache().limit == 3 << 20
    monkeypatch.setenv("TILEWRIGHT_CACHE_LIMIT", "-3")
    with pytest.raises(RuntimeFailure, match="TILEWRIGHT_CACHE_LIMIT='-3'"):
        build_cache()
