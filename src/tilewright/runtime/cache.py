"""The build cache: a directory of small files keyed by what they were built from.

An entry is written to a temporary file and renamed, so readers in other processes see all of it or
nothing; it carries a checksum, so a damaged one is deleted and rebuilt. The cache is never needed:
when the disk is full or read-only it warns once and the build goes on without it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tilewright.util.digest import sources
from tilewright.util.errors import RuntimeFailure

MAGIC = b"TWCACHE1"
SUFFIX = ".entry"
DEFAULT_LIMIT = 2 << 30
#: A temporary file this old (seconds) belongs to a process that died while writing.
ABANDONED = 3600.0


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache holds: ``bytes`` of ``entries`` files, allowed ``limit`` bytes."""

    root: Path
    entries: int
    bytes: int
    limit: int


class BuildCache:
    """Bytes by key under ``root``, at most ``limit`` bytes of them (least recently used go first)."""

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT):
        self.root = root
        self.limit = limit
        self._size: int | None = None  # bytes stored, counted on the first write
        self._warned = False

    @staticmethod
    def key(kind: str, *parts: object) -> str:
        """Key of what is built from ``parts`` (compared by ``str``) by this version and LLVM."""
        digest = hashlib.sha256()
        for part in (kind, *toolchain(), *parts):
            text = str(part).encode()
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text)
        return digest.hexdigest()

    def path(self, key: str) -> Path:
        """The file of ``key``, present or not."""
        return self.root / key[:2] / (key + SUFFIX)

    def load(self, key: str) -> bytes | None:
        """The stored bytes, or None. A damaged entry is removed and reported as absent."""
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        payload = _open_entry(raw)
        try:
            if payload is None:
                path.unlink(missing_ok=True)
            else:
                os.utime(path)  # eviction order
        except OSError:
            pass  # a read-only cache still serves its entries
        return payload

    def store(self, key: str, payload: bytes) -> bool:
        """Keep ``payload`` under ``key``; False (after one warning) when the disk refuses."""
        raw = _seal_entry(payload)
        try:
            self._write(self.path(key), raw)
            self._account(len(raw))
        except OSError as error:
            self._warn("write", error)
            return False
        return True

    def clear(self) -> int:
        """Remove every entry; returns the bytes freed. Raises RuntimeFailure when it may not."""
        freed = 0
        try:
            for path in [*self._files(SUFFIX), *self._files(".tmp")]:
                freed += _size_of(path)
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RuntimeFailure(f"cannot clear the build cache {self.root}: {error}") from error
        self._size = 0
        return freed

    def info(self) -> CacheInfo:
        """Number and size of the entries."""
        sizes = [_size_of(p) for p in self._files(SUFFIX)]
        return CacheInfo(self.root, len(sizes), sum(sizes), self.limit)

    def _write(self, path: Path, raw: bytes) -> None:
        # Entries are executed: nobody else may write where they come from.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(raw)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _account(self, written: int) -> None:
        self._size = self.info().bytes if self._size is None else self._size + written
        if self._size > self.limit:
            self._size = self._evict()

    def _evict(self) -> int:
        """Remove the least recently used entries down to 80 % of the limit; returns bytes left."""
        now = time.time()
        for path in self._files(".tmp"):
            if now - _stat_or(path, "st_mtime", now) > ABANDONED:
                path.unlink(missing_ok=True)
        entries = sorted(self._files(SUFFIX), key=lambda p: _stat_or(p, "st_mtime", now))
        left = sum(_size_of(p) for p in entries)
        for path in entries:
            if left <= self.limit * 0.8:
                break
            left -= _size_of(path)
            path.unlink(missing_ok=True)
        return left

    def _files(self, suffix: str) -> Iterator[Path]:
        # Only files of our own form, two levels deep: TILEWRIGHT_CACHE may name a directory in use.
        yield from self.root.glob(f"[0-9a-f][0-9a-f]/*{suffix}")

    def _warn(self, action: str, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"cannot {action} the build cache {self.root}: {error.strerror or error}; building without it "
                "(free space there, or set TILEWRIGHT_CACHE to another directory)",
                RuntimeWarning,
                stacklevel=4,
            )


def _seal_entry(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).digest() + payload


def _open_entry(raw: bytes) -> bytes | None:
    """The payload, or None when the file is not what was written."""
    head = len(MAGIC) + hashlib.sha256().digest_size
    payload = raw[head:]
    if raw[: len(MAGIC)] != MAGIC or raw[len(MAGIC) : head] != hashlib.sha256(payload).digest():
        return None
    return payload


def _size_of(path: Path) -> int:
    return int(_stat_or(path, "st_size", 0))


def _stat_or(path: Path, field: str, default: float) -> float:
    """A field of the file's stat; ``default`` when another process has just removed it."""
    try:
        return float(getattr(path.stat(), field))
    except FileNotFoundError:
        return default


@cache
def toolchain() -> tuple[str, ...]:
    """Identity of what turns a program into code: LLVM's version and our own sources.

    The sources are part of it so that an edited checkout never runs code of its former self.
    """
    import llvmlite
    import llvmlite.binding as llvm

    digest = sources(Path(__file__).parent.parent, ("ir", "hw", "codegen", "runtime"))
    return (".".join(map(str, llvm.llvm_version_info)), llvmlite.__version__, digest)


def cache_directory() -> Path:
    """``TILEWRIGHT_CACHE``, else ``$XDG_CACHE_HOME/tilewright``, else ``~/.cache/tilewright``."""
    if named := os.environ.get("TILEWRIGHT_CACHE"):
        return Path(named).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "tilewright"
    try:
        return Path.home() / ".cache" / "tilewright"
    except RuntimeError as error:
        raise RuntimeFailure("this user has no home directory for the build cache", hint="set TILEWRIGHT_CACHE") from error


@cache
def _cache_at(root: Path, limit: int) -> BuildCache:
    return BuildCache(root, limit)


def build_cache() -> BuildCache:
    """The cache the environment names now; ``TILEWRIGHT_CACHE_LIMIT`` is its size in MiB."""
    text = os.environ.get("TILEWRIGHT_CACHE_LIMIT")
    if text is not None and not text.isdigit():
        raise RuntimeFailure(f"TILEWRIGHT_CACHE_LIMIT={text!r} is not a number of MiB")
    return _cache_at(cache_directory(), int(text) << 20 if text else DEFAULT_LIMIT)
