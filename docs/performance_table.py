"""The tables of docs/performance.md and of the README, as Markdown, from what `rnnbench compare --format csv` printed.

python docs/performance_table.py docs/performance.csv [cells] [hidden sizes]
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

OURS = "numba-cpu"
CASE = ["direction", "cell", "batch_size", "hidden_size"]


def table(rows: pd.DataFrame) -> list[str]:
    """A line for each case: GFLOP/s, per cent of BLAS's rate, each library's time, and the best peer's time over ours."""
    peers = [name for name in rows.backend.unique() if name != OURS]
    head = ["direction", "cell", "B", "H", "GFLOP/s", "% of BLAS", OURS, *peers, f"best peer / {OURS}"]
    lines = [" | ".join(head), " | ".join(["---"] * 2 + ["---:"] * (len(head) - 2))]
    ratios: dict[tuple[str, str], list[float]] = {}
    for (direction, cell, B, H), case in rows.groupby(CASE, sort=False):
        measured = case[case.status == "ok"].set_index("backend")
        ours, best = measured.loc[OURS], measured.drop(OURS).seconds.min()
        fastest = measured.seconds.idxmin()
        times = []
        for name in (OURS, *peers):
            text = f"{measured.seconds[name] * 1e3:.3g} ms" if name in measured.index else "-"
            times.append(f"**{text}**" if name == fastest else text)
        # the interval of the ratio to the best peer, as compare's bootstrap found it
        peer = measured.drop(OURS).seconds.idxmin()
        low, high = measured.ratio_lower[peer], measured.ratio_upper[peer]
        ratio = best / ours.seconds
        ratios.setdefault((str(direction), str(cell)), []).append(ratio)
        shown = [f"{ours.gflops:.3g}", f"{ours.percent_of_peak:.0f}", *times, f"{ratio:.2f} ({low:.2f} to {high:.2f})"]
        lines.append(
            " | ".join(["inference" if direction == "forward" else "training", str(cell), str(B), str(H), *shown])
        )
    lines = [f"| {line} |" for line in lines]
    lines += ["", "Geometric means of the last column:", ""]
    for (direction, cell), values in ratios.items():
        mean, ahead = np.exp(np.log(values).mean()), sum(value > 1 for value in values)
        name = "inference" if direction == "forward" else "training"
        lines.append(f"- {cell}, {name}: {mean:.2f}, ahead in {ahead} of {len(values)} cases, least {min(values):.2f}")
    return lines


def main(path: str, cells: str = "", sizes: str = "") -> None:
    """Print the table of the file's cases, or of those of some cells and hidden sizes."""
    rows = pd.read_csv(path)
    if cells:
        rows = rows[rows.cell.isin(cells.split(","))]
    if sizes:
        rows = rows[rows.hidden_size.isin([int(size) for size in sizes.split(",")])]
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:])
