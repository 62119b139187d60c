"""Traces: a schedule written down as data, in JSON."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

from tilewright.util.errors import ScheduleError
from tilewright.util.version import __version__


@dataclass(frozen=True, slots=True)
class Step:
    """One applied primitive: its arguments by parameter name and the names it returned."""

    primitive: str
    arguments: tuple[tuple[str, Any], ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        call = f"{self.primitive}({', '.join(f'{k}={v!r}' for k, v in self.arguments)})"
        return f"{', '.join(self.results)} = {call}" if self.results else call


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps that turned a kernel into its scheduled form, and the engine version that ran them."""

    steps: tuple[Step, ...] = ()
    version: str = __version__

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))

    def __len__(self) -> int:
        return len(self.steps)

    def then(self, step: Step) -> Trace:
        """This trace with one more step."""
        return Trace((*self.steps, step), self.version)

    def to_json(self) -> str:
        """JSON text: {"version", "steps": [{"primitive", "arguments", "results"}]}."""
        steps = [{"primitive": s.primitive, "arguments": dict(s.arguments), "results": list(s.results)} for s in self.steps]
        return json.dumps({"version": self.version, "steps": steps}, indent=1)

    @staticmethod
    def from_json(text: str) -> Trace:
        """The trace that :meth:`to_json` wrote; ScheduleError on anything else."""
        try:
            data = json.loads(text)
            steps = tuple(
                Step(str(s["primitive"]), tuple((k, _freeze(v)) for k, v in s["arguments"].items()), tuple(map(str, s["results"])))
                for s in data["steps"]
            )
            return Trace(steps, str(data["version"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ScheduleError(f"not a schedule trace: {e!r}", hint="pass the text that Trace.to_json() returned") from e

    def diff(self, other: Trace) -> str:
        """The difference to ``other``, one step a line: "- " only here, "+ " only there; "" if equal."""
        lines = difflib.ndiff(str(self).splitlines(), str(other).splitlines())
        return "\n".join(line for line in lines if line[0] in "+-")


def plain(value: Any, where: str) -> Any:
    """``value`` as trace data: names, numbers, tuples and dicts of them.

    Loops, buffers and other named things become their names. ScheduleError names ``where`` the
    value is not data.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(plain(v, where) for v in value)
    if isinstance(value, dict):
        return {str(k): plain(v, where) for k, v in value.items()}
    if hasattr(value, "__index__"):
        return int(value)
    if isinstance(name := getattr(value, "name", None), str):
        return name
    raise ScheduleError(f"{where}: {value!r} cannot be recorded in a trace", hint="pass a name, a number or a list of them")


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, list) else value
