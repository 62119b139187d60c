"""What tuning did, as one HTML page that needs neither a network nor a script."""

from __future__ import annotations

from tilewright.report.page import page, write

__all__ = ["page", "write"]
