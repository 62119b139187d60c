"""Tilewright: a tensor compiler and accelerator co-design system."""

__version__ = "0.1.0"
