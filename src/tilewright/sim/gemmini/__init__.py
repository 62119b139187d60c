"""Gemmini: instructions, functional model."""
