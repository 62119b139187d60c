"""Rules in files of users: found by name, sent by path, and what is wrong with them said in words."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from tests.tune.gemm_space import gemm

from tilewright.hw import Machine
from tilewright.space import Space
from tilewright.space.rule_file import load_rule
from tilewright.util.errors import SpaceError

RULES = """
from math import sqrt
from tilewright.space import Knob, Sketch

LIMIT = 4


def whole(context):
    rows = Knob("rows", (2, 4, 8))

    def steps(values):
        sch = context.base.copy()
        sch.split(next(iter(context.stages[-1].loops)), values["rows"])
        return sch

    yield Sketch("mine", (rows,), (), context.base.kernel, steps)


class Narrow:
    def __call__(self, context):
        return [s for s in whole(context) if s.name == "other"]


narrow = Narrow()


def two(context, more):
    return []


def broken(context):
    yield from whole(context)
    raise KeyError("n")


def odd(context):
    return [3]


def nothing(context):
    return None
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.py"
    path.write_text(RULES)
    return path


def space(rule: object) -> Space:
    return Space(gemm(), Machine.host(), 1, rules=[rule])  # type: ignore[list-item]


def test_a_rule_of_a_file_makes_the_same_space_wherever_it_is_sent(rules: Path) -> None:
    rule = load_rule(f"{rules}:whole")
    sent = pickle.loads(pickle.dumps(rule))
    assert sent == rule and hash(sent) == hash(rule) and str(rule) == f"{rules}:whole"
    here, there = space(rule), space(sent)
    assert [s.name for s in here.sketches] == ["mine"] and here.size == there.size == 3
    for point in here.enumerate(3):
        assert str(here.schedule(point).kernel) == str(there.schedule(point).kernel)
    assert here.sample(4, np.random.default_rng(0)).shape == (4, 2)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("nowhere.py:whole", "there is no file .*nowhere.py", "FILE.py:NAME"),
        ("rules.py", "'.*rules.py' does not name a rule", "FILE.py:NAME"),
        ("rules", "does not name a rule", "FILE.py:NAME"),
        ("rules.py:wohle", "has no rule 'wohle'", "it has: whole, narrow, broken, odd, nothing$"),
        ("rules.py:LIMIT", "LIMIT of .* is not a rule", "rule\\(context\\) .*the file has: whole"),
        ("rules.py:two", "two of .* is not a rule", "a rule is a function"),
        ("rules.py:Narrow", "Narrow of .* is not a rule", "a rule is a function"),
    ],
)
def test_names_that_are_no_rule_are_refused(rules: Path, name: str, message: str, hint: str) -> None:
    with pytest.raises(SpaceError, match=message) as refused:
        load_rule(f"{rules.parent}/{name}")
    assert re.search(hint, refused.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [("def f(:", "is not valid Python"), ("import nowhere_at_all", "fails when it is imported: ModuleNotFoundError: No module named")],
)
def test_files_that_cannot_be_imported_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(SpaceError, match=message):
        load_rule(f"{tmp_path}/bad.py:f")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"the rule .*rules.py:broken fails on gemm: KeyError: 'n'"),
        ("odd", "the rule .*rules.py:odd yields 3, which is no sketch"),
        ("nothing", "fails on gemm: TypeError: 'NoneType' object is not iterable"),
        ("narrow", "no rule has a schedule for gemm"),
    ],
)
def test_a_rule_that_fails_is_named(rules: Path, name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        space(load_rule(f"{rules}:{name}"))


def test_a_file_that_changes_while_it_is_used_is_refused(rules: Path) -> None:
    rule = load_rule(f"{rules}:whole")
    rules.write_text(RULES + "# changed\n")
    with pytest.raises(SpaceError, match="has changed since it was named"):
        space(rule)
