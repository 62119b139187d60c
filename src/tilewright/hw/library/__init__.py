"""hw/library."""
