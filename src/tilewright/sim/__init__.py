"""Simulators of declared machines: what a program computes, and how many cycles it takes."""
