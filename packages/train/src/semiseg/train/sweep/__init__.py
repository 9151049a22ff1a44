"""Grids of runs: expansion, launching, progress, tables, plots, confidence intervals."""
