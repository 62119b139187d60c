"""Machines and mappings searched together: map spaces, evaluation of populations, searches, baselines."""
