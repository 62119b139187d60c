"""What tuning measured, kept: tasks, trials and sessions in one SQLite file, exchanged as JSON lines."""

from __future__ import annotations

from tilewright.runtime.records.record import ROLES, Record
from tilewright.runtime.records.session import STATES, Session
from tilewright.runtime.records.store import RecordStore, TaskSummary, records_path
from tilewright.runtime.records.task import Task

__all__ = ["ROLES", "STATES", "Record", "RecordStore", "Session", "Task", "TaskSummary", "records_path"]
