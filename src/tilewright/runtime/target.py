"""What machine code is generated for: target triple, CPU and its features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tilewright.util.errors import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Target:
    """An LLVM target. ``features`` is LLVM's comma-separated list, e.g. ``"+avx2,+fma"``."""

    triple: str
    cpu: str = ""
    features: str = ""

    @property
    def architecture(self) -> str:
        """First part of the triple, e.g. ``x86_64``."""
        return self.triple.split("-")[0]

    def machine(self, level: int = 3) -> Any:
        """The llvmlite TargetMachine; RuntimeFailure when this LLVM cannot generate code for it.

        Position-independent code: the same object can be loaded here and linked into a program.
        """
        import llvmlite.binding as llvm

        initialize()
        try:
            target = llvm.Target.from_triple(self.triple)
        except RuntimeError as error:
            raise RuntimeFailure(f"no code generator for {self.triple}: {error}", hint=f"this host is {host().triple}") from error
        return target.create_target_machine(cpu=self.cpu, features=self.features, opt=level, reloc="pic", codemodel="default")


@cache
def initialize() -> None:
    """Register LLVM's code generators, once per process."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


@cache
def host() -> Target:
    """The processor this process runs on, with every feature it has."""
    import llvmlite.binding as llvm

    return Target(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def of_machine(machine: Any) -> Target:
    """The target a Machine declares (``machine.target``); the host's for None or missing fields."""
    here = host()
    declared = dict(getattr(machine, "target", None) or {})
    if not declared:
        return here
    triple = str(declared.get("triple") or here.triple)
    if triple.split("-")[0] != here.architecture:
        return Target(triple, str(declared.get("cpu", "")), _feature_text(declared.get("features", "")))
    return Target(triple, str(declared.get("cpu") or here.cpu), _feature_text(declared.get("features") or here.features))


def _feature_text(features: Any) -> str:
    if isinstance(features, str):
        return features
    return ",".join(f if f[:1] in "+-" else f"+{f}" for f in features)
