"""Scheduling rules: each turns one kind of stage into primitives of the schedule language."""
