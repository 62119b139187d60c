"""Mathematical functions: hardware instructions, our own vector expansions, or libm."""

from tilewright.codegen.llvm.math.dispatch import call, scaled_exp

__all__ = ["call", "scaled_exp"]
