"""Gemmini's simulators: commands and their words, what a program computes, and how many cycles it takes."""

from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.cycles import Event, Run, simulate
from tilewright.sim.gemmini.functional import Functional
from tilewright.sim.gemmini.memory import MainMemory
from tilewright.sim.gemmini.memory_timing import Timing

__all__ = ["Configuration", "Event", "Functional", "MainMemory", "Run", "Timing", "simulate"]
