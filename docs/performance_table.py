"""The tables of docs/performance.md and of the README, as Markdown, from what `rnnbench compare --format csv` printed.

python docs/performance_table.py docs/performance.csv [--summary | --grid] [column=value,value ...]

--summary prints the geometric means alone, --grid the last column's numbers by hidden and batch size. column=value,... keeps rows:
cell=lstm hidden_size=128,512.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

OURS = "numba-cpu"
DIRECTIONS = {"forward": "inference", "train": "training"}
# what tells one case from another, and how it is called in a table; from T on they are shown where they vary
NAMES = {
    "direction": "direction", "cell": "cell", "batch_size": "B", "hidden_size": "H",
    "seq_len": "T", "input_size": "I", "dtype": "dtype", "threads": "threads", "lengths": "lengths",
}  # fmt: skip
ALWAYS = 4


def table(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """A line for each case (GFLOP/s, per cent of BLAS's rate, each library's time, the best peer's time over ours), and the
    geometric means of the last column.
    """
    peers = [name for name in rows.backend.unique() if name != OURS]
    shown = [
        key for k, key in enumerate(NAMES)
        if k < ALWAYS or (any(rows.input_size != rows.hidden_size) if key == "input_size" else rows[key].nunique() > 1)
    ]  # fmt: skip
    head = [*(NAMES[key] for key in shown), "GFLOP/s", "% of BLAS", OURS, *peers, f"best peer / {OURS}"]
    lines = [" | ".join(head), " | ".join(["---"] * 2 + ["---:"] * (len(head) - 2))]
    ratios: dict[tuple[str, str], list[float]] = {}
    for key, case in rows.groupby(list(NAMES), sort=False):
        measured = case[case.status == "ok"].set_index("backend")
        if OURS not in measured.index or len(measured) == 1:
            continue  # no peer has this cell or dtype
        named = dict(zip(NAMES, key, strict=True)) | {"direction": DIRECTIONS[key[0]]}
        ours, fastest = measured.loc[OURS], measured.seconds.idxmin()
        times = []
        for name in (OURS, *peers):
            text = _milliseconds(measured.seconds[name]) if name in measured.index else "-"
            times.append(f"**{text}**" if name == fastest else text)
        # the ratio within a turn, as compare's bootstrap found it: times of the libraries one by one follow the machine's speed
        peer = measured.drop(OURS).seconds.idxmin()
        ratio, low, high = (float(measured[key][peer]) for key in ("ratio", "ratio_lower", "ratio_upper"))
        ratios.setdefault((named["direction"], named["cell"]), []).append(ratio)
        numbers = [
            f"{ours.gflops:.3g}",
            f"{ours.percent_of_peak:.0f}",
            *times,
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        ]
        lines.append(" | ".join([*(str(named[key]) for key in shown), *numbers]))
    means = []
    for (direction, cell), values in ratios.items():
        mean, ahead = np.exp(np.log(values).mean()), sum(value > 1 for value in values)
        means.append(
            f"- {cell}, {direction}: {mean:.2f}, ahead in {ahead} of {len(values)} cases, least {min(values):.2f}"
        )
    return [f"| {line} |" for line in lines], means


def grid(rows: pd.DataFrame) -> list[str]:
    """The best peer's time over ours, a line for each direction, cell and hidden size, a column for each batch size."""
    measured = rows[(rows.status == "ok") & (rows.backend != OURS)]
    best = measured.loc[measured.groupby(list(NAMES), sort=False).seconds.idxmin()]
    keys = ["direction", "cell", "hidden_size"]
    table = best.pivot_table("ratio", keys, "batch_size").sort_index(axis=1)
    lines = [" | ".join([*(NAMES[key] for key in keys), *(f"B={size}" for size in table.columns)])]
    lines.append(" | ".join(["---"] * 2 + ["---:"] * (1 + len(table.columns))))
    for (direction, *others), ratios in table.iterrows():
        numbers = ["" if np.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
        lines.append(" | ".join([DIRECTIONS[direction], *map(str, others), *numbers]))
    return [f"| {line} |" for line in lines]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def main(path: str, *wishes: str) -> None:
    """Print the table of the file's cases, or of those that are wished for."""
    rows = pd.read_csv(path)
    if "lengths" not in rows:  # as before rows could have different ones
        rows["lengths"] = "full"
    for wish in wishes:
        if not wish.startswith("--"):
            column, _, values = wish.partition("=")
            rows = rows[rows[column].astype(str).isin(values.split(","))]
    (lines, means), what = table(rows), "of the last column"
    if "--grid" in wishes:
        lines, what = grid(rows), "of these ratios"
    if not means:
        sys.exit(f"{path} has no case with {OURS} and a peer that were both measured")
    if "--summary" not in wishes:
        print("\n".join(lines), end="\n\n")
        print(f"Geometric means {what}:", end="\n\n")
    print("\n".join(means))


if __name__ == "__main__":
    main(*sys.argv[1:])
