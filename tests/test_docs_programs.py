"""docs/programs.md says what is so: its links lead somewhere, its numbers are those of the code and of the committed curves."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from original_words import FAULTS
from test_by_hand import PRINTED

from rnnbench.cli.parser import EXAMPLES
from rnnbench.tasks.sources import Markov

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "programs.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert len(links) > 12 and all((DOCS / link).exists() for link in links)


def test_every_program_and_every_fault_is_told() -> None:
    assert PRINTED in TEXT
    assert re.findall(r"`rnnbench example ([\w-]+)`", TEXT) == list(EXAMPLES)
    assert sorted(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)) == sorted(FAULTS)
    assert "wrong in five places" in TEXT and len(FAULTS) == 5


def test_the_floors_are_those_of_the_source() -> None:
    source = Markov(symbols=4, order=2, seed=0)
    assert f"{source.entropy_rate():.4f} nats" in " ".join(TEXT.split())
    assert f"below {source.entropy_rate(seen=1):.4f}" in TEXT


def test_the_story_is_that_of_the_committed_curves() -> None:
    with open(DOCS / "loss-curves.csv", newline="") as file:
        _, *rows = csv.reader(file)
    epochs, original, right, frequencies = np.array(rows, float).T
    assert (original > frequencies).all() and len(epochs) == 31  # "in all thirty epochs"
    assert epochs[right < frequencies][0] == 21 and "at epoch 21" in " ".join(TEXT.split())
    assert original[1] < right[1]  # "falls even faster at first"
