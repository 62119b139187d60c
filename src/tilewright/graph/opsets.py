"""Operator sets of a model: their domains and versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import OperatorSetIdProto


def domain_of(name: str) -> str:
    """The one name of a domain: that of ONNX's own operators may be written in two ways, "" is ours."""
    return "" if name == "ai.onnx" else name


def versions_of(imports: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """The version of each domain that a model or a function imports."""
    return {domain_of(o.domain): int(o.version) for o in imports}
