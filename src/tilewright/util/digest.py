"""Digests of our own sources: what a result depends on when it is kept from one version to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sources(package: Path, parts: Iterable[str]) -> str:
    """Digest of the files below ``parts`` of ``package`` that are code."""
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted((package / part).rglob("*")):
            if path.suffix in (".py", ".ll"):
                digest.update(path.read_bytes())
    return digest.hexdigest()
