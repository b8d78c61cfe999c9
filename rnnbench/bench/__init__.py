"""Benchmarking: the grid of cases, verification before timing, the timing itself, and the machine's ceilings."""
