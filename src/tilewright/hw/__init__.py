"""Machines as declarations: memories, units, instructions, transfers, configuration state."""

from tilewright.hw.availability import Requires, cpu, gpu
from tilewright.hw.axis import Axis, AxisRule, axes, step, upto, vector
from tilewright.hw.constraint import Mantissa, Require, Tied, ValueRange, base, extent, mantissa, require, stride, tied, value_range
from tilewright.hw.emit import LLVM, PTX, Bits, CText, Fragment, RoCC, Steps
from tilewright.hw.family import Family, Parameter
from tilewright.hw.form import LoopForm, Part
from tilewright.hw.hierarchy import Hierarchy, Storage
from tilewright.hw.instruction import Instruction, InstructionFamily, Operand, instruction
from tilewright.hw.load import list_machines, load_machine
from tilewright.hw.machine import Machine, Target
from tilewright.hw.memory import Memory
from tilewright.hw.state import Need, State, needs
from tilewright.hw.transfer import Transfer, transfer
from tilewright.hw.unit import Unit

__all__ = [
    "LLVM",
    "PTX",
    "Axis",
    "AxisRule",
    "Bits",
    "CText",
    "Family",
    "Fragment",
    "Hierarchy",
    "Instruction",
    "InstructionFamily",
    "LoopForm",
    "Machine",
    "Mantissa",
    "Memory",
    "Need",
    "Operand",
    "Parameter",
    "Part",
    "Require",
    "Requires",
    "RoCC",
    "State",
    "Steps",
    "Storage",
    "Target",
    "Tied",
    "Transfer",
    "Unit",
    "ValueRange",
    "axes",
    "base",
    "cpu",
    "extent",
    "gpu",
    "instruction",
    "list_machines",
    "load_machine",
    "mantissa",
    "needs",
    "require",
    "step",
    "stride",
    "tied",
    "transfer",
    "upto",
    "value_range",
    "vector",
]
