"""What machine code is generated for: target triple, CPU and its features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tilewright.util.errors import RuntimeFailure

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine


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

    @property
    def feature_string(self) -> str:
        """``features``, under the name the code generator asks for."""
        return self.features

    def require_host(self, what: str) -> None:
        """Raise RuntimeFailure unless this process can execute code for the target; ``what`` is the code's name."""
        here = host()
        if self.architecture != here.architecture:
            raise RuntimeFailure(
                f"{what} is compiled for {self.architecture}, this process runs on {here.architecture}",
                hint="export it and run it there, or build it for Machine.host()",
            )
        present = set(here.features.split(","))
        if missing := [f[1:] for f in self.features.split(",") if f.startswith("+") and f not in present]:
            raise RuntimeFailure(
                f"{what} is compiled for a processor with {', '.join(missing)}, which this one ({here.cpu}) lacks",
                hint="build it for Machine.host()",
            )

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


def of_machine(machine: Machine | None) -> Target:
    """The target ``machine`` declares; what it leaves open is taken from the host if the triple allows."""
    here = host()
    if machine is None:
        return here
    declared = machine.target
    triple = declared.triple or here.triple
    features = declared.feature_string
    if triple.split("-")[0] == here.architecture and not features:
        return Target(triple, declared.cpu or here.cpu, here.features)
    return Target(triple, declared.cpu, features)
