"""Backends, one package each: LLVM, C, MLIR, and instruction words of declared machines."""
