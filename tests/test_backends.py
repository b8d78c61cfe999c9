"""Backends by name, and a library that is missing or damaged."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types

import pytest

from rnnbench import RNN, BackendUnavailable, backends
from rnnbench.backends import kernel_files


def test_the_known_ones():
    assert backends.OWN == ("numpy", "numba-cpu")
    assert backends.GPU == ("numba-cuda", "numba-cuda-fast", "numba-cuda-tf32", "numba-cuda-fp16", "numba-cuda-bf16")
    assert backends.NAMES == backends.OWN + backends.GPU + backends.PEERS
    assert backends.load("numpy").__name__ == "rnnbench.backends.numpy_backend"
    assert backends.why_unavailable("numpy") is None


def test_no_peer_is_imported_before_it_is_asked_for():
    code = (
        "import sys, rnnbench, rnnbench.backends, rnnbench.bench.check\n"
        "rnnbench.RNN('lstm', 2, 2, backend='numpy')\n"
        "print({'torch', 'onnx', 'onnxruntime', 'jax', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "near"),
    [("nunpy", "numpy"), ("numba", "numba-cpu"), ("numba_cpu", "numba-cpu"), ("xyz", None), ("", None)],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    for ask in (backends.load, backends.why_unavailable, lambda n: RNN("lstm", 2, 2, backend=n)):
        with pytest.raises(ValueError) as error:
            ask(name)
        hint = f"did you mean {near!r}? " if near else ""
        assert str(error.value) == f"unknown backend {name!r}; {hint}choose from {', '.join(backends.NAMES)}"


def test_kernels_that_may_not_be_compiled_are_a_sentence(monkeypatch):
    monkeypatch.setattr("numba.core.config.DISABLE_JIT", 1)
    message = "the backend numba-cpu compiles kernels, and NUMBA_DISABLE_JIT=1 forbids that: unset it, or use the backend numpy"
    assert backends.why_unavailable("numba-cpu") == message
    with pytest.raises(BackendUnavailable, match=message):
        RNN("lstm", 2, 2, backend="numba-cpu")


@pytest.mark.parametrize("name", [None, 3, ["numpy"], {"numpy"}])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="unknown backend "):
        backends.load(name)


def test_a_missing_library_is_a_sentence(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find_spec(name))
    message = "the backend numba-cpu needs the package numba, which is not installed: pip install numba"
    assert backends.why_unavailable("numba-cpu") == message
    for ask in (backends.load, lambda name: RNN("lstm", 2, 2, backend=name)):
        with pytest.raises(BackendUnavailable) as error:
            ask("numba-cpu")
        assert str(error.value) == message
    assert backends.why_unavailable("numpy") is None


def test_a_peers_missing_library_is_an_extra_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    extra = '"rnnbench[peers-torch]"'
    message = f"the backend torch needs the package torch, which is not installed: pip install {extra}"
    assert backends.why_unavailable("torch") == message


@pytest.mark.parametrize(
    "error", [ImportError("Numba needs NumPy 2.0 or less"), OSError("no such library"), AttributeError("x")]
)
def test_a_library_that_does_not_load_is_a_sentence(monkeypatch, error):
    load = importlib.import_module

    def refuse(name, package=None):
        if name == ".numba_cpu":
            raise error
        return load(name, package)

    monkeypatch.setattr(backends, "importlib", types.SimpleNamespace(util=importlib.util, import_module=refuse))
    message = f"the backend numba-cpu needs the package numba, which does not load: {type(error).__name__}: {error}"
    assert backends.why_unavailable("numba-cpu") == message
    with pytest.raises(BackendUnavailable) as raised:
        RNN("lstm", 2, 2)
    assert str(raised.value) == message
    RNN("lstm", 2, 2, backend="numpy")


def test_a_library_that_does_not_load_when_it_is_asked_is_a_sentence(monkeypatch):
    """Numba with NUMBA_NUM_THREADS=0, which numba-cuda imports when it looks for a device."""

    def refuse():
        raise ValueError("Number of threads specified must be > 0.")

    asked = types.SimpleNamespace(why_unavailable=refuse)
    monkeypatch.setattr(backends, "_import", lambda entry: asked)
    assert backends.why_unavailable("numba-cuda") == (
        "the backend numba-cuda needs the package numba, which does not load: ValueError: Number of threads specified must be > 0."
    )


def test_a_user_without_a_home_keeps_kernels_in_the_temporary_folder(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for variable in ("RNNBENCH_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(kernel_files.Path, "home", no_home)
    monkeypatch.setattr(kernel_files.tempfile, "gettempdir", lambda: str(tmp_path))
    assert kernel_files.folder(["a kernel"]).is_relative_to(tmp_path)


def test_no_place_for_compiled_kernels_is_not_the_librarys_fault(monkeypatch):
    load = importlib.import_module

    def refuse(name, package=None):
        if name == ".numba_cpu":
            raise kernel_files.NoFolder("no folder: tried /ro")
        return load(name, package)

    monkeypatch.setattr(backends, "importlib", types.SimpleNamespace(util=importlib.util, import_module=refuse))
    assert backends.why_unavailable("numba-cpu") == "the backend numba-cpu cannot start: no folder: tried /ro"
