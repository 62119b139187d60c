"""Rules in Python files of users: named by path, so that they can be sent to the processes that build candidates."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tilewright.util.errors import SpaceError, TilewrightError
from tilewright.util.source_file import import_file

if TYPE_CHECKING:
    from tilewright.space.context import Context
    from tilewright.space.sketch import Sketch

_HINT = "name a rule in a Python file: FILE.py:NAME (docs/write_a_rule.md)"


@dataclass(frozen=True, slots=True)
class FileRule:
    """The rule ``name`` of the file at ``path``, whose contents have this ``digest``.

    What goes wrong in the user's code is a SpaceError that names the rule: a kernel it cannot handle does not end a session.
    """

    path: str
    name: str
    digest: str

    def __call__(self, context: Context) -> Iterable[Sketch]:
        from tilewright.space.sketch import Sketch

        try:
            found = list(_function(self)(context))
        except TilewrightError:
            raise
        except Exception as error:
            raise SpaceError(
                f"the rule {self} fails on {context.kernel.name}: {type(error).__name__}: {error}",
                hint="where it does not apply a rule has to yield nothing",
            ) from error
        if odd := [s for s in found if not isinstance(s, Sketch)]:
            raise SpaceError(f"the rule {self} yields {odd[0]!r}, which is no sketch", hint="rules yield tilewright.space.Sketch objects")
        return found

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def load_rule(text: str) -> FileRule:
    """The rule that ``FILE.py:NAME`` names.

    SpaceError when the file cannot be imported, has nothing of that name, or what it has is not a function of a context.
    """
    path, _, name = text.partition(".py:")
    if not name:
        raise SpaceError(f"{text!r} does not name a rule", hint=_HINT)
    file = Path(path + ".py").resolve()
    module = import_file(file, SpaceError, _HINT)
    if name not in vars(module):
        raise SpaceError(f"{file} has no rule {name!r}", hint=f"it has: {', '.join(_rules(module)) or 'none'}")
    if not _is_rule(getattr(module, name)):
        raise SpaceError(
            f"{name} of {file} is not a rule: it cannot be called with a context alone",
            hint=f"a rule is a function rule(context) that yields sketches; the file has: {', '.join(_rules(module)) or 'none'}",
        )
    return FileRule(str(file), name, _digest(file))


@lru_cache(maxsize=16)
def _function(rule: FileRule) -> Callable[[Any], Iterable[Any]]:
    path = Path(rule.path)
    module = import_file(path, SpaceError, "the processes that build candidates need it at the same path")
    if _digest(path) != rule.digest:
        raise SpaceError(f"{path} has changed since it was named", hint="start again")
    function: Callable[[Any], Iterable[Any]] = getattr(module, rule.name)
    return function


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rules(module: ModuleType) -> list[str]:
    """What the file itself defines and could be a rule."""
    return [k for k, v in vars(module).items() if not k.startswith("_") and getattr(v, "__module__", "") == module.__name__ and _is_rule(v)]


def _is_rule(value: object) -> bool:
    if not callable(value) or isinstance(value, type):
        return False
    try:
        inspect.signature(value).bind(None)
    except (TypeError, ValueError):
        return False
    return True
