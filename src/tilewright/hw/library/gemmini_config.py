"""A Gemmini of given parameters for its tools: the generator's configuration (Scala), the software's header (C), our machine file."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Banks of the scratchpad and of the accumulator; bytes of an input and of a sum.
SPAD_BANKS, ACC_BANKS, INPUT_BYTES, SUM_BYTES = 4, 2, 1, 4


def buildable(machine: Mapping[str, float]) -> dict[str, int]:
    """The least Gemmini that can be generated with at least these parameters.

    Its side is a power of two, and each bank holds a power of two of tiles of ``dim`` rows: addresses are bits.
    """
    dim = _power(machine["dim"])
    spad = SPAD_BANKS * dim * dim * INPUT_BYTES
    acc = ACC_BANKS * dim * dim * SUM_BYTES
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


def machine_file(name: str, machine: Mapping[str, float]) -> str:
    """Python text that ``tilewright.hw.load_machine`` reads."""
    arguments = ", ".join(f"{k}={v}" for k, v in buildable(machine).items())
    declared = f"from tilewright.hw.library.gemmini import gemmini\n\nmachine = gemmini({name!r}, {arguments})\n"
    return f'"""{name}: found by co-design."""\n\n{declared}'


def scala(name: str, machine: Mapping[str, float], dataflow: str = "WS") -> str:
    """A configuration for the generator: the default one with other sizes, weights (WS) or outputs (OS) stationary."""
    m = buildable(machine)
    name = "".join(part.capitalize() for part in re.split(r"\W+|_", name))
    return f"""package gemmini

import chisel3._
import org.chipsalliance.cde.config.Config
import freechips.rocketchip.diplomacy.LazyModule
import freechips.rocketchip.tile.{{BuildRoCC, OpcodeSet}}

object {name}Configs {{
  val config = GemminiConfigs.defaultConfig.copy(
    tileRows = 1,
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


def header(name: str, machine: Mapping[str, float]) -> str:
    """The parameters that the software library reads."""
    m = buildable(machine)
    dim, spad, acc = m["dim"], m["scratchpad_bytes"], m["accumulator_bytes"]
    return f"""/* {name} */
#ifndef GEMMINI_PARAMS_H
#define GEMMINI_PARAMS_H

#include <stdint.h>

#define XCUSTOM_ACC 3
#define DIM {dim}
#define ADDR_LEN 32
#define BANK_NUM {SPAD_BANKS}
#define BANK_ROWS {spad // (SPAD_BANKS * dim * INPUT_BYTES)}
#define ACC_ROWS {acc // (dim * SUM_BYTES)}
#define MAX_BYTES 64
#define MAX_BLOCK_LEN ({max(64 // dim, 1)})
#define MAX_BLOCK_LEN_ACC ({max(64 // (4 * dim), 1)})

typedef int8_t elem_t;
static const elem_t elem_t_max = 127;
static const elem_t elem_t_min = -128;
typedef int32_t acc_t;
typedef int64_t full_t;

#endif
"""


#: Files by name.
FILES = {"machine.py": machine_file, "GemminiConfig.scala": scala, "gemmini_params.h": header}
