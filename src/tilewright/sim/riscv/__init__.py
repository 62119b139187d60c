"""Bare-metal RV64 programs: compiled by the ``ziglang`` wheel, executed on ``unicorn`` with a model behind custom-3.

Both are optional: ``pip install 'tilewright[riscv]'``.
"""

from tilewright.sim.riscv.emulator import Outcome, execute
from tilewright.sim.riscv.testbench import self_checking
from tilewright.sim.riscv.toolchain import compile_program, listing

__all__ = ["Outcome", "compile_program", "execute", "listing", "self_checking"]
