"""The packages' front doors: light to import, complete, and consistent with what type checkers see."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tilewright

SOURCES = Path(tilewright.__file__).parent
#: Packages whose public names load on first use.
LAZY = sorted(
    ".".join(("tilewright", *p.parent.relative_to(SOURCES).parts)) for p in SOURCES.rglob("__init__.py") if "_HOME" in p.read_text()
)


def test_import_is_light() -> None:
    code = "import sys, time; t = time.process_time(); import tilewright; t = time.process_time() - t; dir(tilewright)\n"
    code += "heavy = {'numpy', 'llvmlite', 'islpy', 'onnx', 'torch'} & set(sys.modules); print(t); assert not heavy, heavy"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60) for _ in range(3)]
    assert min(float(done.stdout) for done in runs) < 0.3


@pytest.mark.parametrize("package", LAZY)
def test_lazy_names_and_type_checking_imports_agree(package: str) -> None:
    module = import_module(package)
    block = next(n for n in ast.parse(Path(str(module.__file__)).read_text()).body if isinstance(n, ast.If))
    static = {a.asname or a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    untyped = {"vocabulary"} if any(isinstance(n, ast.FunctionDef) for n in block.body) else set()
    assert static == {name: f"{package}.{home}" for name, home in module._HOME.items() if home not in untyped}
    assert set(module._HOME) == set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_loads(package: str) -> None:
    module = import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        tilewright.biuld  # type: ignore[attr-defined]  # noqa: B018


def test_errors_show_lines_of_any_length_shortened() -> None:
    from tilewright.util.errors import LONGEST_LINE, LanguageError, Location

    assert str(LanguageError("wrong", location=Location("k.py", 3, "  x = 1  "))) == "k.py:3: x = 1\n  wrong"
    for length in (LONGEST_LINE, LONGEST_LINE + 1, 100_000):
        where = str(Location("k.py", 3, "a" * length))
        assert where.removeprefix("k.py:3: ") == ("a" * length if length == LONGEST_LINE else "a" * (LONGEST_LINE - 3) + "...")
    assert str(Location("k.py", 3)) == str(Location("k.py", 3, " \n")) == "k.py:3"
