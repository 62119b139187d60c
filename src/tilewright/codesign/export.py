"""What was found, for other tools: mappings as text, and architecture, problem and mapping in the YAML of Timeloop v4."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.codesign.layer import DIMS, Layer
from tilewright.cost.loopnest import Factor, LoopNest
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
    """Levels outermost first, units side by side as containers with a mesh; each keeps the tensors that its level always has.

    In Timeloop a container's units are side by side from it on, so that below a level stands after that level.
    """
    h, meshes = family.hierarchy, _meshes(family)
    out = ["architecture:", "  version: 0.4", "  nodes:", "  - !Container", f"    name: {family.name}"]
    for storage, choices in zip(h.levels, family.keeps, strict=True):
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
        out += ["    constraints:", "      dataspace:", *_kept(choices, "        ")]
        if storage.name in meshes:
            container, axis = meshes[storage.name]
            out += ["  - !Container", f"    name: {container}", "    spatial:", f"      {axis}: {family.units(storage.name, machine)}"]
    out += ["  - !Component", "    name: multiplier", "    class: intmac", "    attributes:", "      datawidth: 8"]
    return "\n".join(out) + "\n"


def _meshes(family: Family) -> dict[str, tuple[str, str]]:
    """Levels with units side by side below them: the container of those, and its axis; they take turns."""
    spread = [s.name for s, dims in zip(family.hierarchy.levels, family.spatial, strict=True) if dims]
    return {name: (f"below_{name}", ("meshX", "meshY")[n % 2]) for n, name in enumerate(spread)}


def _kept(choices: tuple[str, ...], indent: str) -> list[str]:
    """Tensors that every choice keeps, and those that none does; of the others mappings decide."""
    always = [_SPACES[k] for k in choices[0] if all(k in own for own in choices)]
    never = [name for letter, name in _SPACES.items() if not any(letter in own for own in choices)]
    return [f"{indent}keep: [{', '.join(always)}]", f"{indent}bypass: [{', '.join(never)}]"]


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


def mapping_yaml(family: Family, nest: LoopNest) -> str:
    """Directives for the nodes of :func:`architecture_yaml`: loops in time and what is kept at levels, loops side by side at containers.

    Permutations stand innermost first. Every dimension has a factor everywhere. Of a permutation in space, ``split`` dimensions lie along
    the mesh's X and the rest along its Y.
    """
    meshes = _meshes(family)
    out = ["mapping:"]
    for level in nest.levels:
        out += _loops(level.name, "temporal", level.temporal)
        out += [f"- target: {level.name}", "  type: dataspace", *_kept((level.keeps,), "  ")]
        if level.name in meshes:
            container, axis = meshes[level.name]
            out += [*_loops(container, "spatial", level.spatial), f"  split: {len(DIMS) if axis == 'meshX' else 0}"]
    return "\n".join(out) + "\n"


def _loops(target: str, kind: str, factors: tuple[Factor, ...]) -> list[str]:
    trips = {f.dim: f.trips for f in factors}
    order = [f.dim for f in reversed(factors)]
    order += [d for d in DIMS if d not in order]
    return [
        f"- target: {target}",
        f"  type: {kind}",
        f"  factors: [{', '.join(f'{d}={trips.get(d, 1)}' for d in DIMS)}]",
        f"  permutation: [{', '.join(order)}]",
    ]


def _name(layer: Layer) -> str:
    return "".join(c if c.isalnum() else "_" for c in layer.name)
