"""What `rnnbench gpu` does on a GPU, in the simulator: the same run on a grid of one tiny case, without PyTorch beside it."""

from __future__ import annotations

import csv
import itertools
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rnnbench import backends, cli
from rnnbench.backends.numba_cuda import ceilings, device, plan
from rnnbench.bench import gpu
from rnnbench.bench.cases import Case
from rnnbench.bench.footprint import tape_bytes, workspace_bytes
from rnnbench.bench.gpu_report import Results
from rnnbench.bench.isolated import Isolated, Lost
from rnnbench.bench.stored import STORED
from rnnbench.bench.verify import Verification

TINY = {"seq_len": 2, "batch_size": 3, "input_size": 2, "hidden_size": 3}


class Here:
    """In place of `Isolated`: in this process, for what the tests exchange would not be exchanged in another one."""

    def __init__(self, function: Any) -> None:
        self.function, self.closed = function, 0

    def __call__(self, *arguments: Any, seconds: float) -> Any:
        return self.function(*arguments)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = Case("lstm", "numba-cuda", "float32", "train", **TINY, lengths="ragged")
    for name, value in {
        "SHAPES": (TINY,), "LARGE": dict.fromkeys(gpu.KERNELS, TINY),
        "CELLS": ("lstm",), "HIDDEN_SIZES": (3,), "BATCH_SIZES": (2,), "SEQ_LENS": (2,),
        "FRESH_INPUTS": 0,
        "COMPARED": ("numba-cuda",), "CONFORMANCE_PROCESSES": 1, "RAGGED_HIDDEN_SIZES": (3,), "RAGGED_BATCH_SIZES": (3,),
        "Isolated": Here,
    }.items():  # fmt: skip
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu.startup, "compile_kernels", lambda groups, until: ((g, "") for g in groups))
    monkeypatch.setattr(gpu.compare, "compare", partial(gpu.compare.compare, turns=2))  # a run takes 0.1 s here
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert ragged.flops < gpu.MOST_FLOPS


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_everything_is_written_and_right(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpu", str(tmp_path / "out"), "--minutes", "5"]) == 0
    folder = tmp_path / "out"
    assert {row["status"] for row in rows(folder / "conformance.csv")} == {"ok"}
    assert {row["backend"] for row in rows(folder / "conformance.csv")} == {"numba-cuda", *STORED}
    assert {row["runs"] for row in rows(folder / "conformance.csv")} == {f"kernel {kernel}" for kernel in gpu.KERNELS}
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


def found(case: Case, status: str, reason: str = "") -> Verification:
    return Verification(case, status, 1.0, 1e-6, "output", reason)


def test_a_wrong_kernel_is_loud(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the smallest case."""

    def verify(case: Case) -> Verification:
        return found(case, "ok") if case.cell == "lstm" else found(case, "wrong", "output has a relative error of 1.0")

    monkeypatch.setattr(gpu, "verify", verify)
    monkeypatch.setattr(gpu, "grid", lambda: [])
    assert cli.main(["gpu", str(tmp_path)]) == 1
    assert "kernel step, gru numba-cuda float32 train T=2 B=3 I=2 H=3: wrong: output has" in capsys.readouterr().out


def test_where_nothing_works_nothing_else_is_tried(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "verify", lambda case: found(case, "failed", "no attribute 'row_stack'"))
    assert cli.main(["gpu", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "no kernel gives correct results, so nothing else was run" in said.err and "compare" not in said.err
    assert "4 failed" in said.out and "no attribute 'row_stack'" in said.out
    assert [row["runs"] for row in rows(tmp_path / "conformance.csv")] == [f"kernel {k}" for k in gpu.KERNELS]


def test_a_barrier_between_blocks_is_among_what_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest shapes are one block, whose barrier nobody else is late for."""
    monkeypatch.setattr(device, "current", lambda: plan.H200)
    *smallest, cluster, grid = gpu.first_contact()
    assert [name for name, _ in smallest] == list(gpu.KERNELS)
    for (kernel, many), blocks in ((cluster, (8, 8)), (grid, (128, 1))):
        small = dict(smallest)[kernel]
        found = [plan.plan(c.spec, c.batch_size, plan.H200, "float32", kernel).blocks for c in (small, many)]
        assert found == [(1, 1), blocks] and many.direction == "train"


@pytest.mark.parametrize(("kernel", "smallest"), [("grid", "ok"), ("grid", "failed"), ("cluster", "ok")])
def test_a_kernel_that_hangs_is_left_out_of_what_comes_after(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str, smallest: str
) -> None:
    many = dict.fromkeys(gpu.KERNELS, TINY | {"seq_len": 1})
    asked: list[str] = []

    def verify(case: Case) -> Verification:
        asked.append(os.environ[gpu.KERNEL])
        hangs = os.environ[gpu.KERNEL] == kernel and (smallest == "failed" or case.seq_len == 1)
        return found(case, "failed", "no answer within 90 s") if hangs else found(case, "ok")

    told: list[Any] = []
    monkeypatch.setattr(gpu, "LARGE", many)
    monkeypatch.setattr(gpu, "verify", verify)
    monkeypatch.setattr(gpu, "sanitized", lambda tool, seconds, kernels: (True, str(kernels)))
    # without the barrier, as where that was not measured
    figures = {"multiply_add_float32_gflops": 1.0, "copy_in_l2_gbytes_per_s": 1.0, "launch_us": 5.0}
    monkeypatch.setattr(gpu, "ceilings", lambda meeting: told.append(meeting) or figures)
    allowed = ",".join(name for name in gpu.KERNELS if name != kernel)

    def compile_kernels(groups: Any, until: float) -> Any:
        told.append(os.environ[gpu.KERNEL])
        return iter(())

    monkeypatch.setattr(gpu.startup, "compile_kernels", compile_kernels)

    # the kernel takes what is large, and two of the four cases are so
    def planned(self: Any, spec: Any, batch_size: int) -> plan.Plan:
        assert self.kernel == allowed
        return plan.Plan("step" if batch_size == 2 else "block", "", blocks=(1, 1))

    monkeypatch.setattr(type(backends.load("numba-cuda")), "planned", planned)

    def compare(case: Case, *_: Any, **__: Any) -> list[dict[str, Any]]:
        told.append((case.batch_size, os.environ.get(gpu.KERNEL)))
        sizes = {"cell": "lstm", "lengths": "full", "seq_len": 2, "batch_size": case.batch_size, "hidden_size": 3}
        return [{"backend": "numba-cuda", "seconds": 1.0, "status": "ok", "direction": case.direction} | sizes]

    monkeypatch.setattr(gpu.compare, "compare", compare)
    assert gpu.run(tmp_path, 5, print) == 1
    first = [*gpu.KERNELS, *(name for name in gpu.MEETING if name != kernel or smallest == "ok")]
    assert asked[: len(first)] == first and set(asked[len(first) :]) == set(allowed.split(","))
    meeting, compiling, *compared = told
    assert meeting == [name for name in gpu.MEETING if name != kernel] and compiling == allowed
    assert sorted(set(compared)) == [(2, allowed), (3, allowed)]
    report = (tmp_path / "report.md").read_text()
    assert f"{kernel} failed at first contact and was left out" in report and str(tuple(allowed.split(","))) in report
    floors = {
        row["batch_size"]: float(row["floor_us"])
        for row in rows(tmp_path / "compare.csv")
        if row["direction"] == "forward"
    }
    assert floors["2"] == 2 * 5.0, "the launches of step, not a barrier"


def test_a_case_that_loses_its_process_costs_that_case(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Losing(Here):
        def __call__(self, *arguments: Any, seconds: float) -> Any:
            if self.function is gpu.ceilings:
                raise RuntimeError("no barrier")
            if any(getattr(given, "lengths", "") == "ragged" for given in arguments):
                raise Lost("no answer within 90 s")
            return super().__call__(*arguments, seconds=seconds)

    monkeypatch.setattr(gpu, "Isolated", Losing)
    monkeypatch.setattr(gpu, "conformance", lambda kernels: [])
    assert cli.main(["gpu", str(tmp_path)]) == 1
    report = capsys.readouterr().out
    assert "the ceilings were not measured: RuntimeError: no barrier" in report
    assert "Lost: 2 cases." in report and ": Lost: no answer within 90 s" in report
    assert [row["lengths"] for row in rows(tmp_path / "compare.csv")] == ["full", "full"]


def test_an_error_of_what_is_timed_beside_costs_one_case(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel that faults takes the device from all that share its process."""
    made: list[Any] = []

    class Spoilt(Here):
        def __init__(self, function: Any) -> None:
            super().__init__(function)
            made.append(self)

        def __call__(self, *arguments: Any, seconds: float) -> Any:
            if self.function is gpu.compared and arguments[0].direction == "train":
                raise RuntimeError("an illegal memory access was encountered")
            return super().__call__(*arguments, seconds=seconds)

    monkeypatch.setattr(gpu, "Isolated", Spoilt)
    monkeypatch.setattr(gpu, "conformance", lambda kernels: gpu.first_contact())
    assert gpu.run(tmp_path, 5, print) == 2
    assert {row["direction"] for row in rows(tmp_path / "compare.csv")} == {"forward"}
    assert "RuntimeError: an illegal memory access" in (tmp_path / "report.md").read_text()
    assert made[-1].closed == 2


def test_a_process_whose_device_may_be_unusable_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere: Any = Here(lambda kernel, case: found(case, "failed", "illegal address"))
    assert gpu._verification(elsewhere, "grid", Case("lstm", "numba-cuda", **TINY)).status == "failed"
    assert elsewhere.closed == 1
    elsewhere.function = lambda kernel, case: found(case, "wrong", "output")
    gpu._verification(elsewhere, "grid", Case("lstm", "numba-cuda", **TINY))
    assert elsewhere.closed == 1


def test_what_there_was_no_time_for_is_named(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert gpu.run(tmp_path, 1e-9, print) == 0
    text = (tmp_path / "report.md").read_text()
    assert "Not timed: 4 cases." in text and "T=2 B=2 I=3 H=3: time ran out" in text
    assert {row["reason"] for row in rows(tmp_path / "conformance.csv")} == {"", "the time for conformance ran out"}


def test_the_grid_is_the_issues_and_its_beginning_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = gpu.grid()
    layers = 3 * 6 * 5 * 2
    assert len(cases) == len(set(cases)) == layers * 2 + 2 * 3 * 2 + 2
    timed = {replace(case, seq_len=1) for case in cases if case.flops <= gpu.MOST_FLOPS and case.lengths == "full"}
    assert len(timed) == layers, "a layer for which the reference would always take too long"
    short = [(case.cell, case.direction, case.hidden_size, case.batch_size) for case in cases if case.seq_len == 32]
    assert short == [("lstm", "train", 1024, 128), ("gru", "train", 1024, 128)]
    assert sum(case.lengths == "ragged" for case in cases) == 12
    first = cases[:40]
    assert {case.cell for case in first} == set(gpu.CELLS) and {case.seq_len for case in first} == set(gpu.SEQ_LENS)
    assert len({case.hidden_size for case in first}) >= 3 and len({case.batch_size for case in first}) >= 3
    assert {case.lengths for case in first} == {"full", "ragged"}
    assert {case.hidden_size for case in cases} == {64, 128, 256, 512, 768, 1024}


def test_cases_that_no_kernel_may_run_are_not_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `step` and `grid` failed at first contact."""
    monkeypatch.setattr(device, "current", lambda: plan.H200)
    asked: list[Any] = []
    monkeypatch.setattr(gpu.startup, "compile_kernels", lambda groups, until: asked.extend(groups) or iter(()))
    gpu.compiled(0.0, ("block",))
    assert asked and {case.hidden_size for group in asked for case in group} < set(gpu.HIDDEN_SIZES)


def test_kernels_are_compiled_ahead_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "current", lambda: plan.H200)
    asked: list[Any] = []

    def compile_kernels(groups: Any, until: float) -> Any:
        asked.extend(groups)
        yield groups[0], "out of memory"
        yield groups[1], ""

    monkeypatch.setattr(gpu.startup, "compile_kernels", compile_kernels)
    notes = gpu.compiled(0.0, gpu.KERNELS)

    def kernels(case: Case) -> tuple[Any, ...]:
        made = backends.load(case.backend).planned(case.spec, case.batch_size)
        return case.backend, case.cell, case.hidden_size, case.direction, made.kernel, made.tile, made.back

    compiled = [kernels(case) for group in asked for case in group if case.backend != "numba-cuda-tf32"]
    needed = {kernels(case.on(name)) for case in gpu.grid() for name in ("numba-cuda", *STORED)}
    assert set(compiled) == needed and len(compiled) == len(needed)
    # LSTM, H = 128: up to 16 rows are one a cluster, and 64 and 128 are five
    assert {tile.rows for *what, tile, _ in needed if what[:3] == ["numba-cuda", "lstm", 128] and tile} == {1, 5}
    assert {case.direction for case in asked[0]} == {"forward", "train"} and asked[0][0].seq_len == gpu.SEQ_LENS[0]
    tf32 = [case for group in asked for case in group if case.backend == "numba-cuda-tf32"]
    assert {(case.seq_len, case.batch_size) for case in tf32} == set(itertools.product(gpu.SEQ_LENS, gpu.BATCH_SIZES))
    assert notes[0] == "not compiled in advance: out of memory"
    assert notes[1] == f"{len(asked) - 1} of {len(asked)} groups of kernels were not compiled in advance: time ran out"


@pytest.mark.parametrize(
    ("script", "clean", "says"),
    [
        ("echo 'grid ok'; echo 'RACECHECK SUMMARY: 0 hazards'", True, "RACECHECK SUMMARY: 0 hazards"),
        ("echo 'RACECHECK SUMMARY: 1 hazard'; exit 86", False, "RACECHECK SUMMARY: 1 hazard"),
        ("echo 'Device not supported'; exit 1", True, "racecheck did not run to its end"),
        (
            "echo 'block ok'; echo 'grid failed no driver'; echo 'ERROR SUMMARY: 0 errors'",
            True,
            "under racecheck the kernels grid did not work, so it has not checked them",
        ),
        ("sleep 60", True, "racecheck did not end within 1 s"),
    ],
)
def test_a_sanitizers_verdict_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, clean: bool, says: str
) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: str(tool))
    found, said = gpu.sanitized("racecheck", 1.0, gpu.KERNELS)
    assert (found, said.splitlines()[-1]) == (clean, says)
    results = Results(tmp_path, "here", {}, sanitizers={"racecheck": (found, said)})
    assert results.bad == (not clean) and f"racecheck: {says}" in results.markdown()
    tool.write_bytes(b"no program")
    assert gpu.sanitized("racecheck", 1.0, gpu.KERNELS) == (True, "racecheck cannot be started: Exec format error")


def test_the_ceilings_are_measured_on_work_that_was_done() -> None:
    larger = replace(device.SIMULATOR, multiprocessors=6)
    launched: list[tuple[int, int]] = []
    launch = ceilings.Queue.launch

    def noted(self: Any, kernel: Any, blocks: Any, *rest: Any, cluster: int = 1) -> None:
        launched.append((blocks[0], cluster))
        launch(self, kernel, blocks, *rest, cluster=cluster)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "current", lambda: larger)
        patch.setattr(ceilings.Queue, "launch", noted)
        assert ceilings.measure(("cluster",))["cluster_barrier_us"] > 0
    assert {blocks for blocks, cluster in launched if cluster > 1} == {4}, (
        "a third cluster would wait for the others to end"
    )
    found = ceilings.measure(gpu.MEETING)
    assert set(found) == {
        "copy_gbytes_per_s", "copy_in_l2_gbytes_per_s", "multiply_add_float32_gflops", "multiply_add_float64_gflops",
        "product_float32_gflops", "product_float64_gflops", "product_tf32_gflops", "launch_us",
        "cluster_barrier_us", "grid_barrier_us_1_blocks", "grid_barrier_us_2_blocks",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())
    assert set(ceilings.measure(())) == {name for name in found if "barrier" not in name}


def test_a_ceiling_of_work_that_was_not_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_seconds", lambda launch, launches: 1.0)
    for measure in (
        lambda: ceilings._copy_rate(8, 1, 3),
        lambda: ceilings._multiply_add_rate("float32", 1, 1),
        lambda: ceilings._product_rate("float32", 4),
        lambda: ceilings._barrier_us("cluster", 2, 2),
    ):
        with pytest.raises(RuntimeError, match="timed"):
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


def test_the_report_sets_the_same_precision_side_by_side(tmp_path: Path) -> None:
    def row(backend: str, seconds: float | None, hidden_size: int = 64) -> dict[str, Any]:
        sizes = {"seq_len": 100, "batch_size": 4, "hidden_size": hidden_size, "lengths": "full"}
        status = "ok" if seconds else "skipped"
        return {"backend": backend, "seconds": seconds, "direction": "train", "cell": "gru", "status": status, **sizes}

    rows = [
        row("torch-cuda", 1e-3) | {"floor_us": None},
        row("numba-cuda", 4e-4) | {"floor_us": 2.5},
        row("torch-cuda", None, 128),
        row("numba-cuda", 4e-4, 128),
    ]
    lines = Results(tmp_path, "here", {}, rows=rows).markdown().splitlines()
    names = "torch-cuda | numba-cuda | floor of numba-cuda | torch-cuda / numba-cuda"
    assert f"| direction | cell | lengths | T | B | H | {names} |" in lines
    assert "| train | gru | full | 100 | 4 | 64 | 10 | 4 | 2.5 | 2.50 |" in lines
    assert "| train | gru | full | 100 | 4 | 128 | skipped | 4 | - | - |" in lines


def test_a_case_runs_in_a_process_of_its_own() -> None:
    """As on a device; one block, for the other process does not run all of them at once."""
    case = Case("lstm", "numba-cuda", "float32", "train", 2, 1, 2, 3)
    with Isolated(gpu.verified) as elsewhere:
        verification = elsewhere("block", case, seconds=300)
        assert verification.ok and verification.case == case and verification.runs == "kernel block"
