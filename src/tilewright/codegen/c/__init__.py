"""C backend: any kernel as portable C11, and custom instructions as C functions."""

from tilewright.codegen.c.function import emit_c, prototype

__all__ = ["emit_c", "prototype"]
