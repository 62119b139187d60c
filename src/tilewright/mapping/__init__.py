"""Find, validate, explain and lower mappings of program iterations onto instruction axes (AMOS, and beyond it)."""

from tilewright.mapping.mapping import Mapping, explain, parse_mapping
from tilewright.mapping.operator import Iteration, Operand, Operator, operator_of
from tilewright.mapping.physical import Placement, feasible, rank
from tilewright.mapping.search import find_mappings
from tilewright.mapping.target import Target, target_of

__all__ = [
    "Iteration", "Mapping", "Operand", "Operator", "Placement", "Target",
    "explain", "feasible", "find_mappings", "operator_of", "parse_mapping", "rank", "target_of",
]  # fmt: skip
