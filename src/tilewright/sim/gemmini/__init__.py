"""Gemmini's simulators: commands and their words, and what a program computes."""

from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.functional import Functional
from tilewright.sim.gemmini.memory import MainMemory

__all__ = ["Configuration", "Functional", "MainMemory"]
