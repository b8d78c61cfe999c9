"""The CUDA backend without a GPU: what it says, what it refuses, what it would do."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from rnnbench import RNN, BackendUnavailable, backends, cli
from rnnbench.backends.numba_cuda import plan
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

device: Any = pytest.importorskip("rnnbench.backends.numba_cuda.device")
NO_GPU = "the backend numba-cuda needs an NVIDIA GPU with its driver: "
pytestmark = pytest.mark.skipif(device.why_unavailable("numba-cuda") is None, reason="there is a GPU here")


def a_driver(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], driver: tuple[int, int]) -> None:
    """A machine with a GPU, as far as it is asked."""
    gpu = types.SimpleNamespace(name=b"NVIDIA GeForce", compute_capability=capability, MULTIPROCESSOR_COUNT=80)
    cuda = types.SimpleNamespace(
        __file__="site-packages/numba_cuda/numba/cuda/__init__.py",
        cuda_error=lambda: None,
        is_available=lambda: True,
        runtime=types.SimpleNamespace(get_version=lambda: (13, 0)),
        get_current_device=lambda: gpu,
    )
    monkeypatch.setattr(device, "cuda", cuda)
    monkeypatch.setattr(device, "_driver_version", lambda: driver)
    monkeypatch.setattr(device, "find_spec", lambda name: name)
    device.current.cache_clear()


def test_no_gpu_is_a_sentence_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in backends.GPU:
        reason = backends.why_unavailable(name)
        assert reason is not None and reason.startswith(f"the backend {name} needs an NVIDIA GPU with its driver: ")
        assert "\n" not in reason
    with pytest.raises(BackendUnavailable, match=NO_GPU):
        RNN("lstm", 3, 4, backend="numba-cuda")
    found = verify(Case("lstm", "numba-cuda"))
    assert found.status == "skipped" and found.reason.startswith(NO_GPU)
    assert cli.main(["gpu", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"rnnbench: nothing was measured: {NO_GPU}")
    assert not (tmp_path / "out").exists()
    assert cli.main(["compare", "--backends", "numba-cuda"]) == 2


def test_a_gpu_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (7, 5), (13, 1))
    assert device.why_unavailable("numba-cuda") is None
    assert device.current() == plan.Device("NVIDIA GeForce", 80)
    device.current.cache_clear()


def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (6, 1), (13, 0))
    message = "the backend numba-cuda needs compute capability 7.5 or more, and NVIDIA GeForce has 6.1"
    assert device.why_unavailable("numba-cuda") == message


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (12, 4))
    assert device.why_unavailable("numba-cuda") == (
        "the backend numba-cuda compiles with CUDA 13.0, and the driver here runs no newer than 12.4: "
        "pip install 'numba-cuda[cu12]' 'cuda-toolkit==12.4.*', or a newer driver"
    )


def test_a_driver_loads_what_a_newer_toolkit_of_its_major_version_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device.cuda.runtime, "get_version", lambda: (13, 2))
    assert device.why_unavailable("numba-cuda") is None


class DynamicLibNotFoundError(RuntimeError):
    """What cuda.pathfinder raises, and numba-cuda lets pass."""


def test_a_driver_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        raise error

    message = "the backend numba-cuda finds a driver, but no NVVM to compile with: pip install 'rnnbench[cuda]'"
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device.cuda, "is_available", lambda: False)
    assert device.why_unavailable("numba-cuda") == message
    monkeypatch.setattr(device.cuda, "is_available", lambda: fail(DynamicLibNotFoundError("libnvvm.so.4")))
    assert device.why_unavailable("numba-cuda") == message
    monkeypatch.setattr(device.cuda, "is_available", lambda: fail(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        device.why_unavailable("numba-cuda")


def test_numba_without_numba_cuda_has_no_bound_on_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert device.why_unavailable("numba-cuda") == (
        "the backend numba-cuda needs the package numba-cuda, which is not installed: pip install 'rnnbench[cuda]'"
    )


def test_numba_cuda_in_a_folder_where_it_takes_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device.cuda, "__file__", "site-packages/numba/cuda/__init__.py")
    reason = device.why_unavailable("numba-cuda")
    assert reason is not None and "needs numba-cuda in place of Numba's own CUDA target" in reason


def test_a_numba_cuda_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device, "version", lambda: "numba-cuda 0.29.1")
    assert device.why_unavailable("numba-cuda") == (
        "the backend numba-cuda needs numba-cuda 0.30 or later, and numba-cuda 0.29.1 is installed"
    )
    monkeypatch.setattr(device, "version", lambda: "numba-cuda 1.0rc1")
    assert device.why_unavailable("numba-cuda") is None
    device.current.cache_clear()


def test_a_numpy_that_numba_cuda_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    a_driver(monkeypatch, (9, 0), (13, 0))
    monkeypatch.setattr(device, "np", types.SimpleNamespace(__version__="2.5.2"))
    for release, works in (("0.30.4", False), ("0.31.0", True)):
        monkeypatch.setattr(device, "version", lambda release=release: f"numba-cuda {release}")
        reason = device.why_unavailable("numba-cuda")
        expected = f"the backend numba-cuda needs NumPy below 2.5: with 2.5.2 numba-cuda {release} compiles nothing"
        assert reason == (None if works else expected)


def test_the_driver_is_started_before_it_is_asked_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba starts it late, and has no error before."""
    a_driver(monkeypatch, (9, 0), (13, 0))
    said: list[str] = []
    monkeypatch.setattr(device.cuda, "is_available", lambda: said.append("CUDA_ERROR_NO_DEVICE. Try again."))
    monkeypatch.setattr(device.cuda, "cuda_error", lambda: said[0] if said else None)
    assert device.why_unavailable("numba-cuda") == f"{NO_GPU}CUDA_ERROR_NO_DEVICE"
