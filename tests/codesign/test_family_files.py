"""Families of machines in users' files: one that works from the command line, and what is said of those that are malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import tilewright, words

from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.hw.load import load_family
from tilewright.util.errors import MachineError, SpaceError

#: Two levels: main memory, and a buffer that a row of units shares, from which weights may be left out.
FILE = """
from tilewright.hw.family import Family, Parameter
from tilewright.hw.hierarchy import Hierarchy, Storage

levels = (
    Storage("main", energy=100.0, words_per_cycle=4),
    Storage("buffer", energy=lambda m: 1 + m["bytes"] / 4096, words_per_cycle=8, words=lambda m: m["bytes"]),
)
family = Family(
    "row",
    Hierarchy("row", levels, arithmetic=0.5, parameters=("units", "bytes")),
    keeps=(("WIO",), ("WIO", "IO")),
    orders=(("NKCPQRS", "CRSNKPQ"), ("KCPQRSN",)),
    spatial=("", "K"),
    fanout=(1, 16),
    parameters=(
        Parameter("units", (lambda u, _: u.units["buffer"],), most=16),
        Parameter("bytes", (lambda u, _: u.held["buffer"],), step=256, least=256),
    ),
    area=lambda m: 0.01 * m["units"] + 1e-5 * m["bytes"],
)
"""


def written(folder: Path, old: str = "", new: str = "") -> str:
    assert old in FILE
    path = folder / "row.py"
    path.write_text(FILE.replace(old, new, 1) if old else FILE)
    return str(path)


def test_a_users_family_is_searched(tmp_path: Path) -> None:
    layers, machine = tmp_path / "layers.json", written(tmp_path)
    layers.write_text('[{"K": 24, "C": 8, "P": 14, "Q": 14, "R": 3, "S": 3}]')
    done = tilewright("codesign", str(layers), "--machine", machine, "--budget=3000", "--area=0.2", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "units" in done.output and (tmp_path / "out" / "timeloop" / "architecture.yaml").is_file()
    assert "bypass: []" in (tmp_path / "out" / "timeloop" / "architecture.yaml").read_text()  # what mappings decide is left open
    function = Path(machine)
    function.write_text(FILE.replace("family = Family(", "def family():\n    return Family("))
    assert load_family(machine).name == "row"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('u.held["buffer"]', 'u.held["cache"]', "a need of parameter bytes of row asks for 'cache'"),
        ('m["bytes"] / 4096', 'm["size"] / 4096', "energy of level buffer of row asks for 'size'"),
        ("energy=100.0", "energy=-1.0", "energy of level main of row is -1.0 for the smallest machine"),
        ("words_per_cycle=8", "words_per_cycle=0", "words_per_cycle of level buffer of row is 0 for the smallest machine"),
        ("arithmetic=0.5", 'arithmetic="half"', "arithmetic of row is 'half'"),
        ('0.01 * m["units"]', '-1 * m["units"]', r"the area of row is -0\.99"),
        ("fanout=(1, 16)", "fanout=(1, 0)", "family row has a fan-out of 0"),
        ("fanout=(1, 16)", "fanout=(16,)", "family row has 1 entries of fanout"),
        ('(("WIO",), ("WIO", "IO"))', '("WIO", "WIO")', "level main of row keeps 'WIO'"),
        ('"bytes", (lambda u', '"size", (lambda u', "family row infers units, size, its hierarchy has units, bytes"),
        ("family = Family", "machine = Family", "declares no family"),
        ("family = Family", 'family = "row"\nFamily', "declares a family that is 'row'"),
        ("family = Family", "def family():\n    return 1 / 0\nFamily", r"family\(\) of .* fails: ZeroDivisionError"),
        ("levels = (", "levels = ((", "is not valid Python"),
    ],
)
def test_malformed_families_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        load_family(written(tmp_path, old, new))


def test_families_that_do_not_fit_layers_are_named(tmp_path: Path) -> None:
    for old, new, message in (
        ('spatial=("", "K")', 'spatial=("", "Z")', "row has loops over 'Z'"),
        ('(("WIO",), ("WIO", "IO"))', '(("WI",), ("WI", "I"))', "row keeps I, W at its outermost level"),
    ):
        with pytest.raises(SpaceError, match=message):
            MapSpace((Layer("x", {"K": 4}),), load_family(written(tmp_path, old, new)))
    missing = tilewright("codesign", "bert", "--machine", str(tmp_path / "none.py"))
    assert missing.exit_code == 1 and "there is no file" in words(missing.output)
    broken = tilewright("codesign", "bert", "--machine", written(tmp_path, "fanout=(1, 16)", "fanout=(1, 0)"))
    assert broken.exit_code == 1 and "has a fan-out of 0" in words(broken.output)
