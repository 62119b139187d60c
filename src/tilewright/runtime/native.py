"""The runtime's own native code: LLVM IR files of this package, compiled once per machine."""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template

from tilewright.runtime import jit
from tilewright.runtime.cache import build_cache
from tilewright.runtime.target import Target, host

#: The assembly instruction that tells a processor it is in a spin loop (others: nothing).
RELAX = {"x86_64": "pause", "i686": "pause", "aarch64": "yield", "arm64": "yield"}


def native_text(name: str, target: Target) -> str:
    """The LLVM IR of ``name`` (a file of this package, e.g. ``"pool.ll"``) for ``target``."""
    source = resources.files("tilewright.runtime").joinpath(name).read_text()
    return Template(source).safe_substitute(RELAX=RELAX.get(target.architecture, ""))


def compiled(text: str, target: Target) -> bytes:
    """Object code of ``text``, from the build cache if it was compiled before."""
    store = build_cache()
    key = store.key("object", text, target)
    code = store.load(key)
    if code is None:
        code = jit.assemble(text, target)
        store.store(key, code)
    return code


@cache
def native_library(name: str, symbols: tuple[str, ...]) -> jit.Library:
    """``name`` compiled for this host and loaded, with the addresses of ``symbols``."""
    return jit.load(compiled(native_text(name, host()), host()), symbols)
