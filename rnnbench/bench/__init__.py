"""What is measured and how: the grid of cases, the check before each timing, the timing, and the machine's ceilings."""
