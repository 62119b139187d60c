"""One trial: what was tried, how it went, and where, when and by whom."""

from __future__ import annotations

import json
import math
import operator
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tilewright.runtime.jobs import STATUSES
from tilewright.runtime.records.task import Task
from tilewright.util.errors import RuntimeFailure
from tilewright.util.version import __version__

#: A "trial" of the search; the "baseline" it starts from; a "final" re-measurement of candidates against each other.
ROLES = ("trial", "baseline", "final")


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@cache
def host_name() -> str:
    """Name of this computer on its network."""
    return platform.node()


@cache
def tool_versions() -> Mapping[str, str]:
    """What decides the code a schedule becomes: versions of Tilewright, its code generator, Python."""
    found = {"tilewright": __version__, "python": platform.python_version()}
    try:
        found["llvmlite"] = version("llvmlite")
    except PackageNotFoundError:
        found["llvmlite"] = "none"
    return found


def new_uid() -> str:
    """An identity no other record has."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Record:
    """A trial of ``task``: schedule, verdict, times in seconds per call (one sample per round).

    ``trace`` is the schedule as JSON text (`Trace.to_json`), ``point`` the same as the search space
    encodes it (`Space.encode`; it can be decoded for other shapes), ``estimate`` the seconds that were
    predicted. What a learned model sees of a trial is not kept: it follows from the task, the trace and the version.

    Final measurements are made in turns. ``against`` is the ``uid`` of what all of one comparison were measured against: the
    record of the schedule without tuning, or of the first of them if that one does not work. ``winner``: declared the
    fastest there, with ``gain``, the median over the rounds of the time without tuning over its own (None: not known).
    RuntimeFailure when the verdict and the samples, or these, contradict each other.
    """

    task: Task
    status: str
    samples: tuple[float, ...] = ()
    trace: str = ""
    point: Mapping[str, Any] | None = None
    message: str = ""
    estimate: float | None = None
    role: str = "trial"
    author: str = ""
    seed: int = 0
    session: str = ""
    against: str = ""
    winner: bool = False
    gain: float | None = None
    host: str = field(default_factory=host_name)
    versions: Mapping[str, str] = field(default_factory=tool_versions)
    date: str = field(default_factory=now)
    uid: str = field(default_factory=new_uid)

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(float(s) for s in self.samples))
        object.__setattr__(self, "seed", int(self.seed))
        # What crashing programs print need not be text.
        object.__setattr__(self, "message", self.message.encode("utf-8", "replace").decode())
        if self.estimate is not None:
            object.__setattr__(self, "estimate", float(self.estimate) if math.isfinite(self.estimate) else None)
        if self.point is not None:
            object.__setattr__(self, "point", plain(self.point))
        if self.status not in STATUSES:
            raise RuntimeFailure(f"record with verdict {self.status!r}", hint=f"verdicts: {', '.join(STATUSES)}")
        if self.role not in ROLES:
            raise RuntimeFailure(f"record of role {self.role!r}", hint=f"roles: {', '.join(ROLES)}")
        if (self.status == "ok") != bool(self.samples):
            raise RuntimeFailure(f"a record with verdict {self.status!r} and {len(self.samples)} samples", hint="ok means it was timed")
        if self.winner and not (self.role == "final" and self.against and self.samples):
            raise RuntimeFailure(
                f"a winner of role {self.role!r}, compared with {self.against or 'nothing'}", hint="winners come of comparisons"
            )
        if self.gain is not None and not (self.winner and 0 < self.gain < math.inf):
            raise RuntimeFailure(f"a gain of {self.gain} for what is {'' if self.winner else 'not '}a winner")
        if not all(math.isfinite(s) and s > 0 for s in self.samples):
            raise RuntimeFailure("a record whose samples are not positive seconds", hint=f"samples: {self.samples[:4]}")

    @property
    def seconds(self) -> float | None:
        """The fastest sample (other programs on the machine only ever add time); None when it was not timed."""
        return min(self.samples, default=None)


def plain(point: Mapping[str, Any]) -> dict[str, Any]:
    """``point`` as records keep it: JSON data, with Python's numbers for NumPy's."""
    try:
        data: dict[str, Any] = json.loads(json.dumps(dict(point), default=operator.index))
    except (TypeError, ValueError) as error:
        raise RuntimeFailure(f"a record's point is not JSON data: {error}", hint="pass what Space.encode returns") from error
    return data
