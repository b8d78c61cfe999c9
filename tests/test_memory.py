"""What is refused before it starts, on machines with and without limits."""

from __future__ import annotations

from functools import partial

import pytest

from rnnbench import memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A file system of its own: machine(path=text, ...) writes files, everything else does not exist."""

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(memory, "available_bytes", partial(memory.available_bytes, tmp_path))
    return write


MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n"


def test_what_linux_says(machine):
    machine(proc__meminfo=MEMINFO)
    assert memory.available_bytes() == 8 * GIB


def test_a_system_that_does_not_tell_refuses_nothing(machine):
    assert memory.available_bytes() is None
    memory.require(2**80, "everything")
    machine(proc__meminfo="MemTotal: 5 kB\n")
    assert memory.available_bytes() is None


V2 = {"sys__fs__cgroup__memory.max": f"{4 * GIB}\n", "sys__fs__cgroup__memory.current": f"{3 * GIB}\n"}
V1 = {
    "sys__fs__cgroup__memory__memory.limit_in_bytes": f"{4 * GIB}\n",
    "sys__fs__cgroup__memory__memory.usage_in_bytes": f"{3 * GIB}\n",
}


@pytest.mark.parametrize(("files", "folder"), [(V2, ""), (V1, "memory__")], ids=["version 2", "version 1"])
def test_a_control_groups_limit_counts_if_it_is_lower(machine, files, folder):
    stat = f"sys__fs__cgroup__{folder}memory.stat"
    machine(proc__meminfo=MEMINFO, **files)
    assert memory.available_bytes() == GIB
    machine(**{stat: "anon 5\nfile 7\n"})
    assert memory.available_bytes() == GIB
    machine(**{stat: f"anon 5\ninactive_file {GIB}\nactive_file {GIB // 2}\n"})
    assert memory.available_bytes() == 5 * GIB // 2  # cached files make room
    machine(**{stat: f"inactive_file 1\nactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}\n"})
    assert memory.available_bytes() == 3 * GIB
    limit = next(name for name in files if "max" in name or "limit" in name)
    machine(**{limit: f"{100 * GIB}"})
    assert memory.available_bytes() == 8 * GIB
    machine(**{limit: "max"})
    assert memory.available_bytes() == 8 * GIB
    machine(**{limit: f"{GIB}", stat: "anon 5\n"})
    assert memory.available_bytes() == 0


V2_NESTED = {
    "proc__self__cgroup": "0::/user.slice/job",
    "sys__fs__cgroup__user.slice__job__memory.max": "max",
    "sys__fs__cgroup__user.slice__job__memory.current": "1",
    "sys__fs__cgroup__user.slice__memory.max": f"{4 * GIB}",
    "sys__fs__cgroup__user.slice__memory.current": f"{3 * GIB}",
    "sys__fs__cgroup__user.slice__memory.stat": f"inactive_file {GIB // 2}\nactive_file 0",
}
V1_NESTED = {
    "proc__self__cgroup": "4:memory:/docker/abc\n1:name=systemd:/\n0::/",
    "sys__fs__cgroup__memory__docker__abc__memory.limit_in_bytes": f"{5 * GIB // 2}",
    "sys__fs__cgroup__memory__docker__abc__memory.usage_in_bytes": f"{GIB}",
    "sys__fs__cgroup__memory__memory.limit_in_bytes": str(2**63 - 4096),
    "sys__fs__cgroup__memory__memory.usage_in_bytes": f"{20 * GIB}",
}


@pytest.mark.parametrize("files", [V2_NESTED, V1_NESTED], ids=["version 2", "version 1"])
def test_a_limit_counts_wherever_it_is_set_from_the_process_s_own_group_upwards(machine, files):
    machine(proc__meminfo=MEMINFO, **files)
    assert memory.available_bytes() == 3 * GIB // 2


def test_files_that_are_closed_to_us_set_no_limit(machine, tmp_path):
    machine(proc__meminfo=MEMINFO, **V2)
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.unlink()
    limit.mkdir()  # reading it raises an OSError, for root too
    assert memory.available_bytes() == 8 * GIB
    (tmp_path / "proc/meminfo").unlink()
    (tmp_path / "proc/meminfo").mkdir()
    assert memory.available_bytes() is None


def test_require(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: GIB)
    memory.require(GIB, "these")
    with pytest.raises(MemoryError, match="^these need 1,536.0 GiB, and 1.0 GiB are available; choose smaller sizes$"):
        memory.require(1536 * GIB, "these")
    with pytest.raises(MemoryError, match="^these need more than 2\\*\\*60 GiB, and 1.0 GiB"):
        memory.require(10**400, "these")
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    with pytest.raises(MemoryError, match="^these need 96.0 MiB, and 1.0 MiB are available"):
        memory.require(96 * 2**20, "these")


def test_what_is_wanted_is_formatted_with_values_alone(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with pytest.raises(MemoryError, match="^seq_len 7 need"):
        memory.require(GIB, "seq_len {}", 7)
    with pytest.raises(MemoryError, match="^a{b}.py:name need"):
        memory.require(GIB, "a{b}.py:name")


def test_a_small_request_does_not_ask_the_system(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: pytest.fail("asked"))
    memory.require(2**20, "a small network")
