"""What was found, for other tools: mappings as text, and architecture, problem and mapping in the YAML of Timeloop v4."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.codesign.layer import DIMS, Layer
from tilewright.cost.loopnest import LoopNest
from tilewright.hw.family import Family

#: What the letters of kept tensors are called.
_SPACES = {"W": "Weights", "I": "Inputs", "O": "Outputs"}
_STEP_NAMES = {"SH": "Hstride", "SW": "Wstride", "DH": "Hdilation", "DW": "Wdilation"}


def mappings_text(layers: tuple[Layer, ...], nests: tuple[LoopNest, ...]) -> str:
    """A line for each layer: its name, count, sizes, and the mapping that :func:`tilewright.cost.loopnest.parse_nest` reads."""
    lines = []
    for x, nest in zip(layers, nests, strict=True):
        sizes = " ".join(f"{d}{n}" for d, n in x.sizes.items()) + "".join(f" {k}{n}" for k, n in x.parameters.items() if n > 1)
        lines.append(f"{x.name}\t{x.count}\t{sizes}\t{nest}")
    return "\n".join(lines) + "\n"


def architecture_yaml(family: Family, machine: Mapping[str, float]) -> str:
    """Levels outermost first, units side by side as containers with a mesh; each keeps the tensors of its level."""
    h = family.hierarchy
    out = ["architecture:", "  version: 0.4", "  nodes:", "  - !Container", f"    name: {family.name}"]
    axes = ["meshX", "meshY"]
    for storage, keeps, spatial, fanout in zip(h.levels, family.keeps, family.spatial, family.fanout, strict=True):
        words, rate = (None if r is None else h.rate(r, machine) for r in (storage.words, storage.words_per_cycle))
        out += [
            "  - !Component",
            f"    name: {storage.name}",
            f"    class: {'DRAM' if words is None else 'regfile' if words <= 1 else 'SRAM'}",
        ]
        out += ["    attributes:", f"      datawidth: {8 * storage.word_bytes}"]
        if words is not None:
            out.append(f"      entries: {round(words)}")
        if rate is not None:
            out.append(f"      shared_bandwidth: {rate:g}")
        dropped = [name for letter, name in _SPACES.items() if letter not in keeps]
        out += ["    constraints:", "      dataspace:", f"        keep: [{', '.join(_SPACES[k] for k in keeps)}]"]
        out.append(f"        bypass: [{', '.join(dropped)}]")
        if spatial:
            axis = axes.pop(0)
            mesh = round(min(fanout, machine.get("dim", fanout)))
            out += ["  - !Container", f"    name: below_{storage.name}", "    spatial:", f"      {axis}: {mesh}"]
    out += ["  - !Component", "    name: multiplier", "    class: intmac", "    attributes:", "      datawidth: 8"]
    return "\n".join(out) + "\n"


def problem_yaml(layer: Layer) -> str:
    """The convolution of all layers, and the sizes of this one."""
    projections = {
        "Weights": "[[[K]], [[C]], [[R]], [[S]]]",
        "Inputs": "[[[N]], [[C]], [[R, Hdilation], [P, Hstride]], [[S, Wdilation], [Q, Wstride]]]",
        "Outputs": "[[[N]], [[K]], [[P]], [[Q]]]",
    }
    out = [
        "problem:",
        "  version: 0.4",
        "  shape:",
        f"    name: {_name(layer)}",
        f"    dimensions: [{', '.join(DIMS)}]",
        "    coefficients:",
    ]
    for name in _STEP_NAMES.values():
        out += [f"    - name: {name}", "      default: 1"]
    out.append("    data_spaces:")
    for name, projection in projections.items():
        out += [f"    - name: {name}", f"      projection: {projection}"]
        out += ["      read_write: true"] if name == "Outputs" else []
    out.append("  instance:")
    out += [f"    {d}: {n}" for d, n in layer.sizes.items()]
    out += [f"    {_STEP_NAMES[k]}: {n}" for k, n in layer.parameters.items()]
    return "\n".join(out) + "\n"


def mapping_yaml(nest: LoopNest) -> str:
    """Loops of each level, innermost first in a permutation as Timeloop has them; every dimension has a factor at every level."""
    out = ["mapping:"]
    for level in nest.levels:
        for kind, factors in (("temporal", level.temporal), ("spatial", level.spatial)):
            if kind == "spatial" and not factors:
                continue
            trips = {f.dim: f.trips for f in factors}
            order = [f.dim for f in reversed(factors)]
            order += [d for d in DIMS if d not in order]
            out += [f"- target: {level.name}", f"  type: {kind}"]
            out.append(f"  factors: [{', '.join(f'{d}={trips.get(d, 1)}' for d in DIMS)}]")
            out.append(f"  permutation: [{', '.join(order)}]")
        dropped = [name for letter, name in _SPACES.items() if letter not in level.keeps]
        out += [f"- target: {level.name}", "  type: dataspace", f"  keep: [{', '.join(_SPACES[k] for k in level.keeps)}]"]
        out.append(f"  bypass: [{', '.join(dropped)}]")
    return "\n".join(out) + "\n"


def _name(layer: Layer) -> str:
    return "".join(c if c.isalnum() else "_" for c in layer.name)
