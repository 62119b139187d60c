"""What block programs may not do: the error names it, shows the user's line with a caret, and says what to do instead."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples.block_matmul import matmul
from examples.block_vectors import add

import tilewright as tw
from tilewright.util.errors import LanguageError, RuntimeFailure, TilewrightError


def _programs() -> Any:
    spec = importlib.util.spec_from_file_location("block_tests_wrong", Path(__file__).with_name("wrong.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


wrong = _programs()
REFUSED = [n for n, f in vars(wrong).items() if isinstance(f, tw.jit(lambda: None).__class__) and n not in ("endless", "first_of_two")]


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_shows_the_line(name: str) -> None:
    """The comment on the line that is to be blamed says what the error says: message | hint."""
    program = getattr(wrong, name)
    lines, first = inspect.getsourcelines(program.block_function)
    row, line = next((first + n, x) for n, x in enumerate(lines) if "  # " in x)
    message, _, hint = line.split("  # ")[1].strip().removeprefix("noqa: F821 ").partition(" | ")
    with pytest.raises(LanguageError) as caught:
        program.kernel((4,), np.zeros(64, np.float32), 10, B=16)
    error = caught.value
    assert message in error.message and hint in (error.hint or "")
    if name != "recursive":  # blamed where the limit is met
        assert error.location is not None and (error.location.file, error.location.line) == (wrong.__file__, row)
        shown = str(error).splitlines()
        assert shown[0] == f"{wrong.__file__}:{row}" and shown[1].strip() == line.strip()


def test_caret_is_under_what_is_wrong() -> None:
    with pytest.raises(LanguageError) as caught:
        wrong.no_broadcast.kernel((1,), np.zeros(8, np.float32), 10, B=16)
    _, line, caret, *_ = str(caught.value).splitlines()
    start, end = caret.index("^"), caret.rindex("^") + 1
    assert line[start:end] == "tl.arange(0, B) + tl.arange(0, 2 * B)"


X = np.zeros(8, np.float32)
LAUNCHES = {
    "missing constexpr": (lambda: add[(1,)](X, X, X, 8), "missing a required argument: 'BLOCK'", "BLOCK=64"),
    "missing argument": (lambda: add[(1,)](X, X, 8, BLOCK=8), "missing a required argument: 'n'", "x_ptr"),
    "too many": (lambda: add[(1,)](X, X, X, 8, 8, 8), "too many positional", "x_ptr"),
    "unknown keyword": (lambda: add[(1,)](X, X, X, 8, BLOK=8), "no parameter 'BLOK'", "x_ptr"),
    "array as constexpr": (lambda: add[(1,)](X, X, X, 8, BLOCK=X), "constexpr BLOCK is an array", "annotation"),
    "no array": (lambda: add[(1,)]({}, X, X, 8, BLOCK=8), "dict is not an array", "NumPy"),
    "number as pointer": (lambda: add[(1,)](3.0, X, X, 8, BLOCK=8), "a pointer", "x_ptr"),
    "strings": (lambda: add[(1,)](np.array(["a"]), X, X, 8, BLOCK=8), "no element type", "float16/32/64"),
    "backwards": (lambda: add[(1,)](X[::-1], X, X, 8, BLOCK=8), "strides", "ascontiguousarray"),
    "grid": (lambda: add[(1, 2, 3, 4)](X, X, X, 8, BLOCK=8), "is not a grid", "one to three integers"),
    "negative grid": (lambda: add[-1](X, X, X, 8, BLOCK=8), "is not a grid", "one to three integers"),
    "no grid": (lambda: add(X, X, X, 8, BLOCK=8), "add is a block program", "add[grid]"),
    "block too large": (lambda: add[(1,)](X, X, X, 8, BLOCK=1 << 21), "more than", "smaller"),
    "no configurations": (lambda: tw.autotune(configs=[], key=[]), "no configuration", "Config"),
    "unknown key": (lambda: tw.autotune(configs=[tw.Config({})], key=["q"])(matmul.function), "no parameter 'q'", ""),
    "word outside": (lambda: __import__("tilewright.language").language.load(X), "tl.load is a word", "tilewright.jit"),
}


@pytest.mark.parametrize("case", LAUNCHES)
def test_launches_are_checked(case: str) -> None:
    launch, message, hint = LAUNCHES[case]
    with pytest.raises(TilewrightError) as caught:
        launch()
    assert message in caught.value.message and hint in (caught.value.hint or "")


def test_written_arrays_may_not_overlap_others() -> None:
    x = np.zeros(16, np.float32)
    with pytest.raises(RuntimeFailure, match="overlaps"):
        add[(1,)](x[:8], x[8:], x[4:12], 8, BLOCK=8)


def test_read_only_outputs() -> None:
    x = np.zeros(8, np.float32)
    x.flags.writeable = False
    with pytest.raises(RuntimeFailure, match="read-only"):
        add[(1,)](np.ones(8, np.float32), np.ones(8, np.float32), x, 8, BLOCK=8)


def test_a_list_is_no_array_and_is_not_printed() -> None:
    x = np.ones(1000, np.float32)
    with pytest.raises(LanguageError, match="of 1000 is not a block or a number") as caught:
        add[(1,)]([1.0] * 1000, x, x.copy(), 1000, BLOCK=1024)
    assert "pass one array" in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises(RuntimeFailure) as unknown:
        add[(1,)](x, x, x.copy(), 1000, BLOCK=1024, FOO=1)
    assert "BLOCK: tl.constexpr)" in str(unknown.value.hint) and "marks" not in str(unknown.value.hint)
