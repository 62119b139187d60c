"""The project keeps its own rules: package order, file sizes, documentation that exists and runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Roughly 500: a source file is one idea.
LINES = 550


def test_packages_import_only_packages_below_them() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_package_is_in_the_import_contract_and_in_the_guide() -> None:
    contract = (ROOT / "pyproject.toml").read_text()
    packages = {p.parent.name for p in (ROOT / "src" / "tilewright").glob("*/__init__.py")}
    layers = re.findall(r'"\(?tilewright\.(\w+)\)?",', contract)
    assert packages == set(layers)
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert table == layers[::-1], "docs/architecture.md lists the packages from the lowest up"


def test_source_files_fit_in_a_head() -> None:
    long = {}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if (lines := len(path.read_text().splitlines())) > LINES:
            long[name] = lines
    assert not long


@pytest.mark.parametrize("package", ["mapping", "space", "schedule", "cost"])
def test_no_machine_is_programmed_into_what_serves_all(package: str) -> None:
    """What these packages know of an accelerator, they know from its declaration."""
    root = ROOT / "src" / "tilewright" / package
    named = [p.name for p in root.rglob("*.py") if "gemmini" in p.name.lower() or "gemmini" in p.read_text().lower()]
    assert not named


def test_every_dependency_is_pinned_and_has_a_reason() -> None:
    """docs/dependencies.md has the packages of pyproject.toml, extra by extra, and no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", package) for packages in wanted.values() for package in packages)
    always, extras = (ROOT / "docs" / "dependencies.md").read_text().split("\nExtras:\n")
    found = {"": {package for named, _, _ in _rows(always) for package in named}}
    extra = ""
    for named, packages, _ in _rows(extras):
        extra = named[0] if named else extra
        found.setdefault(extra, set()).update(packages)
    assert found == {name: {p.split("==")[0] for p in packages} for name, packages in wanted.items()}


def _rows(table: str) -> list[list[list[str]]]:
    """What stands in `marks`, in each cell of each row."""
    lines = [line.split("|")[1:-1] for line in table.splitlines() if re.match(r"\| (`|\|)", line)]
    return [[re.findall(r"`([\w.-]+)`", cell) for cell in cells] for cells in lines]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = [t.partition("#") for t in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text())]
    missing = [f + a for f, _, a in targets if not (path.parent / f).exists() or (a and a not in _anchors(path.parent / f if f else path))]
    assert not missing


def _anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_readme_programs_run_in_order(tmp_path: Path) -> None:
    """The Python blocks of the README, in a file of their own (a kernel is read from its source)."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    setup = "import onnx; from examples.vit import vit, ViTConfig; "
    setup += f"onnx.save(vit(ViTConfig(image=16, width=16, mlp=24, layers=1)), {str(tmp_path / 'model.onnx')!r})"
    subprocess.run([sys.executable, "-c", setup], cwd=ROOT, check=True, timeout=120)
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_readme_commands_exist() -> None:
    from tilewright.cli.app import ENTRIES

    named = re.findall(r"^tilewright (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(set(named)) >= 9 and set(named) <= {e.name for e in ENTRIES}
