"""Locks that end with their process: who works on what, in one file beside the records.

The file holds nothing. A name is a place in it, and the operating system keeps who has locked that place: it gives the lock
back when the process ends, however it ends, so there is nothing stale to be found or cleared away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from pathlib import Path

from tilewright.util.errors import RuntimeFailure


class Lock:
    """A place of ``path`` that this holder, and nobody else in any process, has locked. Made by :meth:`taken`."""

    def __init__(self, descriptor: int):
        self._descriptor: int | None = descriptor

    @staticmethod
    def taken(path: Path, name: str) -> Lock | None:
        """The lock ``name`` of the file ``path`` (made if absent); None when somebody has it. RuntimeFailure: no locks there."""
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # Of the open file, not of the process: those would end when anybody here closes the file.
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise RuntimeFailure(
                f"cannot lock {path}: {error.strerror}", hint="keep records on a local disk that can be written"
            ) from error
        return Lock(descriptor)

    def release(self) -> None:
        """Give it back. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
