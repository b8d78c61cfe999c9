"""What rnnbench says of a machine: on this one, and on others that exist here only as a few files."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from rnnbench.bench import machine, record
from rnnbench.cli import main
from rnnbench.cli import run as command

GIB = 2**30


@pytest.fixture
def fresh_peaks() -> Iterator[None]:
    """Peaks are kept for the process: a test that fakes one must not leave it behind."""
    machine.peak_gflops.cache_clear()
    machine.copy_gbytes_per_s.cache_clear()
    yield
    machine.peak_gflops.cache_clear()
    machine.copy_gbytes_per_s.cache_clear()


def tree(root: Path, files: dict[str, str]) -> Path:
    """A file system's root with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="utf-8")
    return root


# Two cores with two threads each; this process may run on the processors 2 and 3, one core's two threads, and on 1.
SERVER = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu sse4_2 avx avx2 fma avx512f sha",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:   12582912 kB",
    **{f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": "2-3" if n > 1 else "0-1" for n in range(4)},
    "sys/devices/system/cpu/cpu1/cache/index0/level": "1",
    "sys/devices/system/cpu/cpu1/cache/index0/type": "Data",
    "sys/devices/system/cpu/cpu1/cache/index0/size": "48K",
    "sys/devices/system/cpu/cpu1/cache/index1/level": "1",
    "sys/devices/system/cpu/cpu1/cache/index1/type": "Instruction",
    "sys/devices/system/cpu/cpu1/cache/index1/size": "32K",
    "sys/devices/system/cpu/cpu1/cache/index2/level": "3",
    "sys/devices/system/cpu/cpu1/cache/index2/type": "Unified",
    "sys/devices/system/cpu/cpu1/cache/index2/size": "36608K",
}


def test_this_machine_is_described_in_json() -> None:
    facts = machine.describe()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["python"].startswith(platform.python_version())
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)
    assert facts["blas"]["name"] != "unknown"
    assert set(facts) == {
        *("arch", "blas", "caches", "cores", "cpu", "gpu", "instruction_sets", "memory", "memory_available_bytes"),
        *("memory_bytes", "os", "physical_cores", "python", "versions"),
    }


def test_a_linux_server(tmp_path: Path) -> None:
    assert machine._linux_facts(tree(tmp_path, SERVER), {1, 2, 3}) == {
        "cpu": "Example 9000",
        "cores": 3,
        "physical_cores": 2,
        "caches": {"L1d": "48 KiB", "L3": "35.75 MiB"},
        "instruction_sets": "sse4_2 avx fma avx2 avx512f",
        "memory_bytes": 16 * GIB,
    }


@pytest.mark.parametrize(
    ("group", "cores", "memory_gib"),
    [
        pytest.param(
            {
                "proc/self/cgroup": "0::/user.slice/job",
                "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000",
                "sys/fs/cgroup/user.slice/cpu.max": "150000 100000",
                "sys/fs/cgroup/user.slice/job/memory.max": str(4 * GIB),
                "sys/fs/cgroup/user.slice/memory.max": "max",
            },
            *(2, 4),
            id="version 2, one limit of its own and one of the group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            },
            *(1, 2),
            id="version 1, a container that sees itself at the top",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "2:cpu:/\n1:memory:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
            },
            *(4, 16),
            id="version 1, no limit",
        ),
    ],
)
def test_a_control_group_limits(tmp_path: Path, group: dict[str, str], cores: int, memory_gib: int) -> None:
    facts = machine._linux_facts(tree(tmp_path, SERVER | group), {0, 1, 2, 3})
    assert (facts["cores"], facts["memory_bytes"]) == (cores, memory_gib * GIB)


def test_what_a_container_hides_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_command", lambda *words: "")
    facts = machine._linux_facts(tmp_path, {0, 1})
    assert facts.pop("cores") == 2
    assert facts.pop("caches") == {}
    assert set(facts.values()) == {"unknown"}


def test_a_processor_without_a_name_in_its_files_is_named_by_lscpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_command", lambda *words: "Architecture: aarch64\nModel name:  Neoverse-N1\n")
    root = tree(tmp_path, {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd sve"})
    facts = machine._linux_facts(root, {0})
    assert (facts["cpu"], facts["instruction_sets"]) == ("Neoverse-N1", "asimd sve")


def test_a_mac() -> None:
    known = {
        "machdep.cpu.brand_string": "Apple M9",
        "hw.logicalcpu": "10",
        "hw.physicalcpu": "10",
        "hw.optional.arm64": "1",
        "hw.memsize": str(16 * GIB),
        "hw.perflevel0.l1dcachesize": "131072",
        "hw.l1dcachesize": "65536",
        "hw.l2cachesize": "4194304",
    }
    assert machine._mac_facts(lambda name: known.get(name, "")) == {
        "cpu": "Apple M9",
        "cores": 10,
        "physical_cores": 10,
        "caches": {"L1d": "128 KiB", "L2": "4 MiB"},
        "instruction_sets": "asimd",
        "memory_bytes": 16 * GIB,
    }


def test_an_older_mac() -> None:
    known = {"machdep.cpu.features": "FPU SSE4.2 AVX1.0 FMA", "machdep.cpu.leaf7_features": "AVX2 BMI1"}
    facts = machine._mac_facts(lambda name: known.get(name, ""))
    assert facts["instruction_sets"] == "sse4_2 avx fma avx2"
    assert facts["memory_bytes"] == "unknown"


def test_a_whole_description_where_nothing_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_command", lambda *words: "")
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine.memory, "available_bytes", lambda: None)
    facts = machine.describe()
    assert facts["memory"] == facts["memory_bytes"] == facts["memory_available_bytes"] == facts["cpu"] == "unknown"


def test_an_unknown_command_says_nothing() -> None:
    assert machine._command("a-command-that-nobody-has") == ""
    assert machine._command("false") == ""
    assert machine._command("echo", "text") == "text"


def test_the_peak_is_the_best_rate_with_blas_held(fresh_peaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def pretend(work: object, seconds: float) -> float:
        held.append({lib["num_threads"] for lib in ThreadpoolController().info() if lib["user_api"] == "blas"})
        return 0.5 if len(held) == 2 else 1000.0

    monkeypatch.setattr(machine, "_shortest", pretend)
    assert machine.peak_gflops("float64", 1) == 2 * machine.PRODUCT_SIZES[1] ** 3 / 0.5 / 1e9
    assert held == [{1}] * len(machine.PRODUCT_SIZES) or held == [set()] * len(
        machine.PRODUCT_SIZES
    )  # set(): Accelerate
    assert machine.peak_gflops("float64", 1) and len(held) == len(machine.PRODUCT_SIZES)  # measured once


def test_peaks_are_measured(fresh_peaks: None) -> None:
    before = [library["num_threads"] for library in ThreadpoolController().info()]
    assert 0.1 < machine.peak_gflops("float32", 1, seconds=0.02) < 1e5
    assert 0.05 < machine.copy_gbytes_per_s(2, seconds=0.02) < 1e4
    assert [library["num_threads"] for library in ThreadpoolController().info()] == before


def test_a_runs_record_has_the_peak_of_each_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    suite = SimpleNamespace(plan=lambda: [(0, 0, None)], prepare_folder=lambda: path, record_path=path)
    peaks = {"float32": 2.0, "float64": 1.0}
    for name, stand_in in {
        "find_checkout": lambda start, what: start,
        "asv_machine": lambda *_: {"machine": "desk"},
        "Suite": lambda *_, **__: suite,
        "peak_gflops": lambda dtype, *_: peaks[dtype],
        "copy_gbytes_per_s": lambda *_: 3.0,
        "_compile": lambda planned: None,
        "_follow": lambda *_: ([], False),
    }.items():
        monkeypatch.setattr(command, name, stand_in)
    assert main(["run", "--suite", "smoke", "--dry-run"]) == 0
    about, finished = record.read(path)
    assert finished == record.finished("smoke", [])
    assert about["peak_gflops"] == peaks


def test_every_byte_is_copied_by_some_thread(fresh_peaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    monkeypatch.setattr(machine.np, "copyto", lambda target, source: copied.append(source.nbytes))
    monkeypatch.setattr(machine.memory, "available_bytes", lambda: 8 * 3000)
    monkeypatch.setattr(machine, "_shortest", lambda work, seconds: (work(), 1e-6)[1])
    assert machine.copy_gbytes_per_s(2) == pytest.approx(2 * 3000 / 1e-6 / 1e9)
    assert sum(copied) == 3000 and len(copied) == 2


def test_the_shortest_call_counts() -> None:
    clock = iter([0.0, *(0.0, 5.0), *(5.0, 7.0), *(7.0, 10.0), 10.0])  # three calls: of 5, 2 and 3 seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine.time, "perf_counter", lambda: next(clock))
        assert machine._shortest(lambda: None, 1e-9) == 2.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("float16", 1), "dtype must be float32 or float64, not 'float16'"),
        (("float32", 0), "threads must be a whole number of at least 1, not 0"),
        (("float32", 1.5), "threads must be a whole number of at least 1, not 1.5"),
        (("float32", 1, 0), "seconds must be above 0, not 0"),
        (("float32", 1, math.nan), "seconds must be above 0, not nan"),
    ],
)
def test_wrong_arguments(arguments: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        machine.peak_gflops(*arguments)  # type: ignore[arg-type]
    if arguments[0] == "float32":
        with pytest.raises(ValueError, match=sentence):
            machine.copy_gbytes_per_s(*arguments[1:])  # type: ignore[arg-type]


def test_gpus_are_told_as_their_driver_does() -> None:
    listed = "NVIDIA H200, 143771 MiB, 580.65.06, 1980 MHz\nNVIDIA T4, 15360 MiB, 580.65.06, 1590 MHz"
    told = "NVIDIA H200, 143771 MiB, driver 580.65.06, up to 1980 MHz; NVIDIA T4, 15360 MiB, driver 580.65.06, up to 1590 MHz"
    assert machine.gpu(lambda *words: listed if words[0] == "nvidia-smi" else "") == told


@pytest.mark.parametrize("printed", ["", "NVIDIA-SMI has failed because it couldn't communicate with the driver"])
def test_no_gpu_is_said(printed: str) -> None:
    assert machine.gpu(lambda *words: printed).startswith("none: nvidia-smi")
