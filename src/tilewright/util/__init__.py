"""Errors, quantities as text, digests of sources, names that load on first use. Imports nothing from the rest of the package."""
