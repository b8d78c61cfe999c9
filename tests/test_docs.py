"""README.md and the pages of docs/ say what is so: links, commands, code and the numbers of committed results."""

from __future__ import annotations

import inspect
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import rnnbench
from rnnbench import backends, report
from rnnbench.cells import BUILT_IN
from rnnbench.cli.parser import build

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
UNITS = {"k": 1e3, "M": 1e6, "": 1.0}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of shell blocks that run rnnbench, continued ones joined."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", "").splitlines()
    found = [re.sub(r"\s+#.*|\s*>.*|.*&& ", "", line).strip() for line in lines]
    return [line for line in found if line.startswith("rnnbench ")]


def table_rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `first`."""
    lines = text[text.index(first) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return rows[: next(k for k, line in enumerate(lines[2:]) if not line.startswith("|"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_that_the_parser_takes(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None)  # of peers and a GPU that are not here
    for command in commands(page.read_text(encoding="utf-8")):
        build()[0].parse_args(shlex.split(command)[1:])


def test_the_reading_of_pages_finds_what_is_there() -> None:
    assert len(commands(README)) > 12
    assert commands("```sh\na && rnnbench run --suite quick \\\n  --keep > x   # why\n```\n") == [
        "rnnbench run --suite quick   --keep"
    ]
    assert table_rows("| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n\n", "| a ") == [["1", "2"], ["3", "4"]]


def test_the_readmes_cells_are_those_of_the_code() -> None:
    lstm, users = [block for block in blocks(README, "python") if "@cell" in block]
    assert (
        lstm.strip()
        == re.sub(r'\n    r?""".*?"""', "", inspect.getsource(BUILT_IN["lstm"].fn), flags=re.DOTALL).strip()
    )
    example = (ROOT / "examples" / "your_own_cell.py").read_text(encoding="utf-8")
    assert all(line in example for line in users.splitlines() if line.startswith("    "))


def test_the_readmes_python_runs() -> None:
    (program,) = [block for block in blocks(README, "python") if "import numpy" in block]
    names: dict[str, object] = {}
    exec(program.replace("numba-cpu", "numpy"), names)  # noqa: S102  (the same lines, without compiling)
    assert isinstance(names["rnn"], rnnbench.RNN) and isinstance(names["output"], np.ndarray)
    assert names["output"].shape == (64, 16, 128)


def test_the_readmes_throughput_is_that_of_the_committed_run() -> None:
    frame = report.load(ROOT / "results", machine="epyc-zen4-2core", commit="ec6fb918")
    forward = frame[(frame.metric == "time") & (frame.direction == "forward") & (frame.batch_size == 16)]
    rows, cell = table_rows(README, "| cell | backend | H=64"), ""
    assert len(rows) == 6
    for first, backend, *shown in rows:
        cell = first or cell
        for size, text in zip((64, 128, 512), shown, strict=False):
            chosen = (forward.cell == cell) & (forward.backend == backend.strip("*")) & (forward.hidden_size == size)
            (seconds,) = forward[chosen].value
            number, _, unit = text.partition(" ")
            assert math.isclose(float(number) * UNITS[unit], 64 * 16 / seconds, rel_tol=0.006), (cell, backend, size)


def test_the_readmes_comparison_is_that_of_the_page_and_its_file() -> None:
    page = table_rows((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), "| direction | cell | B | H |")
    shown = table_rows(README, "| direction | cell | B | H |")
    assert len(page) == 112 and all(row in page for row in shown)
    ahead = sum(float(row[-1].split()[0]) > 1 for row in page)
    assert f"These are {len(shown)} of {len(page)} cases" in README
    assert f"ahead of the best peer in {ahead} of them" in README
