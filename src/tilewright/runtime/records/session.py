"""A tuning session: what was asked for, and how far it got."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tilewright.runtime.measurement import processor_name
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.records.record import host_name, now, tool_versions
from tilewright.util.errors import RuntimeFailure

#: "running" is also what a killed session leaves behind; "stopped" was interrupted, "failed" ended with an error.
STATES = ("running", "done", "stopped", "failed")


def new_session_id() -> str:
    """Sorts by time, and is unlike any other: ``20261121-083012-3fa9c1``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def sitting(threads: int) -> dict[str, Any]:
    """The conditions now, on ``threads`` threads for each candidate: who measures where, with what, and how busy it is (JSON data)."""
    return {
        "date": now(), "host": host_name(), "pid": os.getpid(), "processor": processor_name(), "system": platform.platform(),
        "processors": len(available_cpus()), "threads": threads, "load": round(os.getloadavg()[0], 2), "versions": dict(tool_versions()),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the tuner, possibly in several sittings.

    ``subject`` is what the user named (a model file, an operator with its shape), ``tasks`` maps task
    keys to their weights (how often the subject runs each), in order. The budget is ``trials`` and
    ``seconds`` (None: unlimited). ``options`` is any other JSON data needed to go on. ``sittings`` are the conditions at the
    beginning of each sitting, as :func:`sitting` gives them.
    """

    subject: str
    tasks: Mapping[str, float]
    author: str = ""
    seed: int = 0
    trials: int | None = None
    seconds: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    state: str = "running"
    id: str = field(default_factory=new_session_id)
    host: str = field(default_factory=host_name)
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    sittings: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sittings", tuple(self.sittings))
        if self.state not in STATES:
            raise RuntimeFailure(f"session in state {self.state!r}", hint=f"states: {', '.join(STATES)}")
