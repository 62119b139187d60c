"""Errors, small data helpers and progress display. Imports nothing from the rest of the package."""
