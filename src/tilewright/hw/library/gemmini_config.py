"""A Gemmini of given parameters for its tools: the generator's configuration (Scala), the software's header (C), our machine file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from tilewright.hw.library.gemmini_header import FLOATS, parameters
from tilewright.hw.library.gemmini_types import BF16, FP16, FP32, INT8, Types
from tilewright.ir.types import DType

#: Banks of the scratchpad and of the accumulator.
SPAD_BANKS, ACC_BANKS = 4, 2
#: Configurations that the generator comes with, by what they multiply into what.
BASES = {(t.inputs, t.sums): f"GemminiFPConfigs.{name}DefaultConfig" for name, t in (("FP32", FP32), ("BF16", BF16), ("FP16", FP16))} | {
    (INT8.inputs, INT8.sums): "GemminiConfigs.defaultConfig"
}


def buildable(machine: Mapping[str, float], types: Types = INT8) -> dict[str, int]:
    """The least Gemmini that can be generated with at least these parameters.

    Its side is a power of two, and each bank holds a power of two of tiles of ``dim`` rows: addresses are bits.
    """
    dim = _power(machine["dim"])
    spad = SPAD_BANKS * dim * dim * types.inputs.nbytes
    acc = ACC_BANKS * dim * dim * types.sums.nbytes
    return {
        "dim": dim,
        "scratchpad_bytes": max(spad * _power(machine["scratchpad_bytes"] / spad), 1024),
        "accumulator_bytes": max(acc * _power(machine["accumulator_bytes"] / acc), 1024),
    }


def _power(least: float) -> int:
    """The first power of two from 1 that is not less."""
    out = 1
    while out < least:
        out *= 2
    return out


def machine_file(name: str, machine: Mapping[str, float], types: Types = INT8) -> str:
    """Python text that ``tilewright.hw.load_machine`` reads."""
    arguments = ", ".join(f"{k}={v}" for k, v in buildable(machine, types).items())
    imports = "from tilewright.hw.library.gemmini import gemmini\n"
    if types != INT8:
        given = {"inputs": types.inputs, "sums": types.sums, "column": types.column}
        arguments += f", types=Types({', '.join(f'{k}={v}' for k, v in given.items())})"
        used = sorted({str(t) for t in given.values() if t is not None})
        imports += f"from tilewright.hw.library.gemmini_types import Types\nfrom tilewright.ir.types import {', '.join(used)}\n"
    declared = f"{imports}\nmachine = gemmini({name!r}, {arguments})\n"
    return f'"""{name}: found by co-design."""\n\n{declared}'


def scala(name: str, machine: Mapping[str, float], types: Types = INT8, dataflow: str = "WS") -> str:
    """A configuration for the generator: the default one for ``types`` with other sizes, weights (WS) or outputs (OS) stationary."""
    m = buildable(machine, types)
    base = BASES.get((types.inputs, types.sums), BASES[INT8.inputs, INT8.sums])
    changed = {} if types.column is None else {"spatialArrayOutputType": _chisel(types.column)}
    if (types.inputs, types.sums) not in BASES:
        wide = f"SInt({types.column_bits(m['dim'])}.W)"
        changed = {"inputType": _chisel(types.inputs), "accType": _chisel(types.sums), "spatialArrayOutputType": wide}
    elements = "".join(f"    {k} = {v},\n" for k, v in changed.items())
    name = "".join(part.capitalize() for part in re.split(r"\W+|_", name))
    return f"""package gemmini

import chisel3._
import org.chipsalliance.cde.config.Config
import freechips.rocketchip.diplomacy.LazyModule
import freechips.rocketchip.tile.{{BuildRoCC, OpcodeSet}}

object {name}Configs {{
  val config = {base}.copy(
{elements}    tileRows = 1,
    tileColumns = 1,
    meshRows = {m["dim"]},
    meshColumns = {m["dim"]},
    sp_capacity = CapacityInKilobytes({m["scratchpad_bytes"] // 1024}),
    acc_capacity = CapacityInKilobytes({m["accumulator_bytes"] // 1024}),
    sp_banks = {SPAD_BANKS},
    acc_banks = {ACC_BANKS},
    dataflow = Dataflow.{dataflow}
  )
}}

class {name}GemminiConfig extends Config((site, here, up) => {{
  case BuildRoCC => up(BuildRoCC) ++ Seq((p: org.chipsalliance.cde.config.Parameters) => {{
    implicit val q = p
    LazyModule(new Gemmini({name}Configs.config))
  }})
}})
"""


def _chisel(dtype: DType) -> str:
    if dtype.is_float:
        exponent, significand, _ = FLOATS[dtype]
        return f"Float({exponent}, {significand})"
    return f"SInt({dtype.bits}.W)"


def header(name: str, machine: Mapping[str, float], types: Types = INT8) -> str:
    """The parameters that the software library reads."""
    return parameters(name, buildable(machine, types), SPAD_BANKS, types)


def files(types: Types = INT8, dataflow: str = "WS") -> dict[str, Callable[[str, Mapping[str, float]], str]]:
    """What writes each of the files, by name."""
    configuration = partial(scala, types=types, dataflow=dataflow)
    return {
        "machine.py": partial(machine_file, types=types),
        "GemminiConfig.scala": configuration,
        "gemmini_params.h": partial(header, types=types),
    }
