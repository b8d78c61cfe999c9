"""What `rnnbench gpu` does on a GPU, in the simulator: the same run on a grid of one tiny case, without PyTorch beside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rnnbench import cli
from rnnbench.backends.numba_cuda import ceilings
from rnnbench.bench import gpu
from rnnbench.bench.cases import Case
from rnnbench.bench.footprint import tape_bytes, workspace_bytes
from rnnbench.bench.stored import STORED
from rnnbench.bench.verify import Verification

TINY = {"seq_len": 2, "batch_size": 3, "input_size": 2, "hidden_size": 3}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = Case("lstm", "numba-cuda", "float32", "train", **TINY, lengths="ragged")
    for name, value in {
        "SHAPES": (TINY,), "CELLS": ("lstm",), "HIDDEN_SIZES": (3,), "BATCH_SIZES": (2,), "SEQ_LENS": (2,), "FRESH_INPUTS": 0,
        "COMPARED": ("numba-cuda",), "RAGGED_HIDDEN_SIZES": (3,), "RAGGED_BATCH_SIZES": (3,),
    }.items():  # fmt: skip
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert ragged.flops < gpu.MOST_FLOPS


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_everything_is_written_and_right(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpu", str(tmp_path / "out"), "--minutes", "5"]) == 0
    folder = tmp_path / "out"
    assert {row["status"] for row in rows(folder / "conformance.csv")} == {"ok"}
    assert {row["backend"] for row in rows(folder / "conformance.csv")} == {"numba-cuda", *STORED}
    assert {row["runs"] for row in rows(folder / "conformance.csv")} == {"kernel block", "kernel grid", "kernel step"}
    compared = rows(folder / "compare.csv")
    assert [(row["direction"], row["lengths"], row["backend"], row["status"]) for row in compared] == [
        (direction, lengths, "numba-cuda", "ok") for lengths in ("full", "ragged") for direction in ("forward", "train")
    ]
    assert "precise mathematics" in compared[0]["runs"]
    assert "simulator" in json.loads((folder / "machine.json").read_text())["runs"]
    report = capsys.readouterr().out
    assert report == (folder / "report.md").read_text() + "\n"
    assert "0 wrong, 0 failed" in report and "| forward | lstm | full | 2 | 2 | 3 |" in report
    assert "compute-sanitizer is not on the PATH" in report


def test_a_wrong_kernel_is_loud(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        gpu,
        "verify",
        lambda case: Verification(case, "wrong", 1.0, 1e-6, "output", "output has a relative error of 1.0"),
    )
    assert cli.main(["gpu", str(tmp_path)]) == 1
    assert "kernel step, lstm numba-cuda float32 train T=2 B=3 I=2 H=3: wrong: output has" in capsys.readouterr().out


def test_what_there_was_no_time_for_is_named(tiny: None, tmp_path: Path) -> None:
    found = list(gpu.conformance(until=0.0))
    assert found and {(v.status, v.reason) for v in found} == {("skipped", "the time for conformance was over")}
    text = gpu.report("here", {}, found, "none", [], ["lstm: the time was over"])
    assert "Not timed: 1 cases." in text and "- lstm: the time was over" in text


def test_the_grid_is_the_issues(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = gpu.grid()
    assert len(cases) == len(set(cases)) == 3 * 6 * 5 * 2 * 2 + 2 * 3 * 2
    assert [case.lengths for case in cases] == ["full"] * 180 + ["ragged"] * 12 + ["full"] * 180
    assert {case.hidden_size for case in cases} == {64, 128, 256, 512, 768, 1024}


def test_the_ceilings_are_measured_on_work_that_was_done() -> None:
    found = ceilings.measure()
    assert set(found) == {
        "copy_gbytes_per_s", "product_float32_gflops", "product_float64_gflops", "launch_us", "grid_barrier_us_1_blocks",
        "grid_barrier_us_2_blocks",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())


def test_a_ceiling_of_work_that_was_not_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_seconds", lambda launch, launches: 1.0)
    for measure in (lambda: ceilings._copy_rate(8, 1), lambda: ceilings._product_rate("float32", 4)):
        with pytest.raises(RuntimeError, match="that was timed"):
            measure()


def test_asv_counts_device_bytes() -> None:
    def workspace(**sizes: Any) -> int:
        return workspace_bytes(Case("lstm", "numba-cuda", **(TINY | sizes)))

    pre = 2 * 3 * 4 * 3 * 4  # T, B, P, H, bytes
    states = 2 * 3 * 2 * 3 * 4  # slots, B, S, H, bytes
    assert pre + states <= workspace() <= pre + states + 512
    assert workspace(seq_len=4) - workspace() == pre
    case = Case("lstm", "numba-cuda", "float32", "train", **TINY)
    assert tape_bytes(case) == (3 * 2 + 2 * 5) * 3 * 3 * 4  # states of three slots, five saved values of two steps
