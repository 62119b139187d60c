"""The package's front door: light to import, complete, and consistent with what type checkers see."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tilewright


def test_import_is_light() -> None:
    code = "import sys, time; t = time.process_time(); import tilewright; t = time.process_time() - t; dir(tilewright)\n"
    code += "heavy = {'numpy', 'llvmlite', 'islpy', 'onnx', 'torch'} & set(sys.modules); print(t); assert not heavy, heavy"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60) for _ in range(3)]
    assert min(float(done.stdout) for done in runs) < 0.3


def test_lazy_names_and_type_checking_imports_agree() -> None:
    tree = ast.parse(Path(tilewright.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    static = {a.asname or a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert static == set(tilewright.__all__) <= set(dir(tilewright))


@pytest.mark.parametrize("name", tilewright.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(tilewright, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        tilewright.biuld  # noqa: B018
