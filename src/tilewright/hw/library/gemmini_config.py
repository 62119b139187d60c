"""A Gemmini of given parameters for its tools: the generator's configuration (Scala), the software's header (C), our machine file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from tilewright.hw.library.gemmini_types import BF16, FP16, FP32, INT8, Types
from tilewright.ir.types import DType, bf16, f16, f32

#: Banks of the scratchpad and of the accumulator; bytes of the largest request.
SPAD_BANKS, ACC_BANKS, MAX_BYTES = 4, 2, 64
#: Configurations that the generator comes with, by what they multiply into what.
BASES = {(t.inputs, t.sums): f"GemminiFPConfigs.{name}DefaultConfig" for name, t in (("FP32", FP32), ("BF16", BF16), ("FP16", FP16))} | {
    (INT8.inputs, INT8.sums): "GemminiConfigs.defaultConfig"
}
#: Bits of the exponent and of the significand, the largest number.
FLOATS = {f32: (8, 24, "3.4028235E38"), bf16: (8, 8, "3.3895314E38"), f16: (5, 11, "65504.0")}


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


def _elements(types: Types) -> str:
    """Types of the software library: floats of 16 bits are their bits, with the largest number as a float."""
    if not types.real:
        least, most = types.inputs.range
        limits = f"static const elem_t elem_t_max = {most};\nstatic const elem_t elem_t_min = {least};"
        return f"typedef int{types.inputs.bits}_t elem_t;\n{limits}\ntypedef int{types.sums.bits}_t acc_t;\ntypedef int64_t full_t;"
    exponent, significand, largest = FLOATS[types.inputs]
    short = types.inputs.bits == 16
    kind, limit = ("uint16_t", "float") if short else ("float", "elem_t")
    lines = [f"typedef {kind} elem_t;", *(["#define ELEM_T_IS_LOWPREC_FLOAT"] if short else [])]
    lines += [f"static const {limit} elem_t_max = {largest};", f"static const {limit} elem_t_min = -{largest};"]
    lines += ["typedef float acc_t;", "typedef double full_t;", "", "#define ELEM_T_IS_FLOAT"]
    lines += [f"#define ELEM_T_EXP_BITS {exponent}", f"#define ELEM_T_SIG_BITS {significand}"]
    lines += ["#define ACC_T_EXP_BITS 8", "#define ACC_T_SIG_BITS 24"]
    return "\n".join([*lines, f"typedef uint{types.inputs.bits}_t elem_t_bits;", "typedef uint32_t acc_t_bits;"])


def header(name: str, machine: Mapping[str, float], types: Types = INT8) -> str:
    """The parameters that the software library reads."""
    m = buildable(machine, types)
    row, sums = m["dim"] * types.inputs.nbytes, m["dim"] * types.sums.nbytes
    dim, spad, acc = m["dim"], m["scratchpad_bytes"], m["accumulator_bytes"]
    return f"""/* {name} */
#ifndef GEMMINI_PARAMS_H
#define GEMMINI_PARAMS_H

#include <stdint.h>

#define XCUSTOM_ACC 3
#define DIM {dim}
#define ADDR_LEN 32
#define BANK_NUM {SPAD_BANKS}
#define BANK_ROWS {spad // (SPAD_BANKS * row)}
#define ACC_ROWS {acc // sums}
#define MAX_BYTES {MAX_BYTES}
#define MAX_BLOCK_LEN ({max(MAX_BYTES // row, 1)})
#define MAX_BLOCK_LEN_ACC ({max(MAX_BYTES // sums, 1)})

{_elements(types)}

#endif
"""


def files(types: Types = INT8, dataflow: str = "WS") -> dict[str, Callable[[str, Mapping[str, float]], str]]:
    """What writes each of the files, by name."""
    configuration = partial(scala, types=types, dataflow=dataflow)
    return {
        "machine.py": partial(machine_file, types=types),
        "GemminiConfig.scala": configuration,
        "gemmini_params.h": partial(header, types=types),
    }
