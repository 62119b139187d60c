"""Mathematical functions: hardware instructions, our own vector expansions, or libm."""

from tilewright.codegen.llvm.math.dispatch import call

__all__ = ["call"]
