"""Command programs for machines that are driven by instruction words: generation, text, checks, execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {
    "generate": "lowering",
    "check": "checking",
    "parse_program": "reader",
    "stream": "streaming",
    **dict.fromkeys(
        ("Branch", "Command", "Fence", "Host", "Item", "Let", "Loop", "Pointer", "Program", "Tile", "Word", "has_words", "walk", "words"),
        "program",
    ),
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.codegen.commands.checking import check as check
    from tilewright.codegen.commands.lowering import generate as generate
    from tilewright.codegen.commands.program import Branch as Branch
    from tilewright.codegen.commands.program import Command as Command
    from tilewright.codegen.commands.program import Fence as Fence
    from tilewright.codegen.commands.program import Host as Host
    from tilewright.codegen.commands.program import Item as Item
    from tilewright.codegen.commands.program import Let as Let
    from tilewright.codegen.commands.program import Loop as Loop
    from tilewright.codegen.commands.program import Pointer as Pointer
    from tilewright.codegen.commands.program import Program as Program
    from tilewright.codegen.commands.program import Tile as Tile
    from tilewright.codegen.commands.program import Word as Word
    from tilewright.codegen.commands.program import has_words as has_words
    from tilewright.codegen.commands.program import walk as walk
    from tilewright.codegen.commands.program import words as words
    from tilewright.codegen.commands.reader import parse_program as parse_program
    from tilewright.codegen.commands.streaming import stream as stream
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
