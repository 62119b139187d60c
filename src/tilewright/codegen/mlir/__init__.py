"""MLIR text of every level: loops (func, scf, memref, arith, math), contractions as linalg, command programs in a declared dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {
    "emit_mlir": "function",
    "emit_command_mlir": "commands",
    "emit_irdl": "dialect",
    "emit_block_mlir": "blocks",
    "emit_block_irdl": "blocks",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.codegen.mlir.blocks import emit_block_irdl as emit_block_irdl
    from tilewright.codegen.mlir.blocks import emit_block_mlir as emit_block_mlir
    from tilewright.codegen.mlir.commands import emit_command_mlir as emit_command_mlir
    from tilewright.codegen.mlir.dialect import emit_irdl as emit_irdl
    from tilewright.codegen.mlir.function import emit_mlir as emit_mlir
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
