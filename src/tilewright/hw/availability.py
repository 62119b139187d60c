"""What must be present at run time for an instruction to be used."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requires:
    """All of ``features`` must be present, in LLVM's spelling for CPUs (``avx512vnni``) or ``sm_80`` for GPUs."""

    features: tuple[str, ...] = ()

    def missing(self, present: Set[str]) -> tuple[str, ...]:
        """The features that are not among ``present``, in the order declared."""
        return tuple(f for f in self.features if f not in present)

    def __str__(self) -> str:
        return ", ".join(self.features)


#: Needs nothing.
ALWAYS = Requires()


def cpu(*features: str) -> Requires:
    """``requires=cpu("avx512f", "avx512vnni")``."""
    return Requires(features)


def gpu(architecture: str) -> Requires:
    """``requires=gpu("sm_80")``: that architecture, with its features, or a later one."""
    return Requires((architecture,))
