"""The benchmark suite of airspeed velocity. Classes are thin; what they measure is in rnnbench.bench.

`rnnbench run` picks the grid and keeps the verification records; plain `asv run` works too. Discovery imports every
module here and a failing import ends it, so optional libraries are imported in `setup` or later, by rnnbench's
backends.
"""
