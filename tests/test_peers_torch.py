"""PyTorch beyond the grid of cases that every peer runs: features of networks, tapes, threads, precision on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the package torch is not installed")

import peer_checks  # noqa: E402
import users_cells  # noqa: E402

from rnnbench import RNN, backends, cells  # noqa: E402
from rnnbench.backends import threads  # noqa: E402
from rnnbench.backends.peers import torch as peer  # noqa: E402
from rnnbench.bench.cases import Case  # noqa: E402
from rnnbench.bench.verify import verify  # noqa: E402
from rnnbench.params import Spec  # noqa: E402

FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "projection": ("lstm", {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
    "no bias": ("gru", {"bias": False}),
    "forget bias": ("lstm", {"forget_bias": 1.5}),
    "forget bias and no bias": ("lstm", {"forget_bias": 1.5, "bias": False, "num_layers": 2}),
    "batch first": ("rnn_relu", {}),
    "nothing given": ("lstm", {"given": False}),
    "all rows empty": ("gru", {"lengths": peer_checks.EMPTY}),
    "no lengths": ("lstm", {"lengths": None}),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_networks_agree_with_numpy(feature: str, training: bool) -> None:
    cell, options = FEATURES[feature]
    for dtype in ("float32", "float64"):
        assert peer_checks.disagreements("torch", cell, dtype, training, **options) == []


def test_a_disagreement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = peer.TorchNetwork._packed

    def longer(self: Any, x: Any, state: Any, lengths: np.ndarray) -> Any:
        return right(self, x, state, np.maximum(lengths, 3))

    monkeypatch.setattr(peer.TorchNetwork, "_packed", longer)
    assert "output" in peer_checks.disagreements("torch", "lstm")[0]


def test_swapped_gates_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = peer.TorchBackend.prepare

    def swapped(self: Any, spec: Spec, params: dict[str, np.ndarray]) -> Any:
        H = spec.hidden_size
        return prepare(self, spec, {n: np.roll(w, H, axis=0) if "hh" in n else w for n, w in params.items()})

    monkeypatch.setattr(peer.TorchBackend, "prepare", swapped)
    found = verify(Case("lstm", "torch", "float64", "train", 5, 3, 4, 6))
    assert found.status == "wrong" and "relative error" in found.reason


def test_nothing_in_the_padding_is_used() -> None:
    clean, dirty = (
        peer_checks.everything("torch", "gru", "float32", True, padding=padding) for padding in (0.0, np.nan)
    )
    for name, value in clean.items():
        np.testing.assert_array_equal(dirty[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (("lstm_peephole",), "PyTorch has no layer for the cell lstm_peephole; it has rnn_tanh, rnn_relu, lstm, gru"),
        ((f"{users_cells.__file__}:slstm",), "PyTorch has no layer for the cell slstm"),
        (("lstm[clip=0.5]",), "no layer for the cell lstm[clip=0.5]"),
        (("gru", {"reverse": True}), "not backwards only"),
        (
            ("rnn_tanh", {"proj_size": 3}),
            "PyTorch projects the output of an LSTM only, and the cell is rnn_tanh with proj_size 3",
        ),
        (("lstm", {"proj_size": 7}), "proj_size and hidden_size are both 7"),
    ],
)
def test_what_is_lacking_is_said(spec: Any, words: str) -> None:
    name, options = spec[0], spec[1] if len(spec) > 1 else {}
    reason = peer.CPU.why_unsupported(Spec(cells.find(name), 3, 7, **options), "forward")
    assert reason is not None and words in reason
    with pytest.raises(ValueError, match="the backend torch cannot run this network: "):
        RNN(name, 3, 7, backend="torch", **options)


def test_a_tape_is_used_again_and_counts_what_it_keeps() -> None:
    rnn = RNN("gru", 3, 7, backend="torch")
    x = np.random.default_rng(0).random((6, 4, 3), np.float32)
    output, _, tape = rnn.forward(x)
    first, second = (rnn.backward(tape, np.ones_like(output)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    values = 6 * 4 * 7 * 4  # bytes of one value for each unit and step
    assert 3 * values <= tape.nbytes <= 30 * values


def test_results_are_the_users_own() -> None:
    rnn = RNN("lstm", 3, 7, backend="torch")
    x = np.random.default_rng(0).random((6, 4, 3), np.float32)
    x.flags.writeable = False
    output, state = rnn(x)
    kept = output.copy(), state[1].copy()
    again, _ = rnn(x)
    again += 1
    np.testing.assert_array_equal(output, kept[0])
    np.testing.assert_array_equal(state[1], kept[1])


def test_the_number_of_threads_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            monkeypatch.setattr(threads, "_chosen", count)
            RNN("lstm", 3, 7, backend="torch")
            assert torch.get_num_threads() == count
            assert peer.CPU.describe() == (
                f"torch {torch.__version__.partition('+')[0]}, oneDNN, {count} thread{'s' * (count > 1)}"
            )
    finally:
        torch.set_num_threads(before)


def test_onednn_runs_the_lstm_in_float32() -> None:
    assert torch.backends.mkldnn.is_available()
    rnn: Any = RNN("lstm", 8, 16, backend="torch").network
    x = rnn.put(np.ones((4, 2, 8), np.float32))
    with torch.profiler.profile() as profile:
        rnn.forward(x, None, None, False)
    assert any("mkldnn_rnn" in event.key for event in profile.key_averages())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["torch-cuda", "torch-cuda-tf32", "torch-cuda-fp16", "torch-cuda-bf16"])
def test_without_a_device_cuda_says_so(name: str) -> None:
    message = f"the backend {name} needs a CUDA device, and PyTorch {torch.__version__} finds none"
    assert backends.why_unavailable(name) == message
    assert verify(Case("lstm", name)).reason == message


@pytest.mark.parametrize("tf32", [False, True])
def test_on_cuda_the_precision_is_the_variants_while_it_runs_and_the_device_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    """Without a device: what surrounds the layers' call, with the waiting replaced by a note of the settings."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before, seen = (matmul.allow_tf32, cudnn.allow_tf32), []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: seen.append((matmul.allow_tf32, cudnn.allow_tf32)))
    network: Any = RNN("lstm", 3, 7, backend="torch").network
    network._backend = peer.TorchBackend("cuda", "tf32" if tf32 else "")
    x = torch.ones(4, 2, 3)
    network.forward(x, None, None, False)
    output, _, tape = network.forward(x, None, None, True)
    network.backward(tape, torch.ones_like(output), None)
    assert seen == [(tf32, tf32)] * 3
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


@pytest.mark.parametrize("tf32", [False, True])
def test_a_second_pass_for_a_tape_is_one_of_training_in_the_variants_precision(
    monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    """cuDNN refuses to go back through a pass in evaluation mode; an inference between the two passes has set that."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    network: Any = RNN("lstm", 3, 7, backend="torch").network
    network._backend = peer.TorchBackend("cuda", "tf32" if tf32 else "")
    x, run, seen = torch.ones(4, 2, 3), network.run, []

    def noted(*arguments: Any) -> Any:
        seen.append((network.module.training, matmul.allow_tf32, cudnn.allow_tf32))
        return run(*arguments)

    monkeypatch.setattr(network, "run", noted)
    output, _, tape = network.forward(x, None, None, True)
    for use in (lambda: tape.nbytes, lambda: network.backward(tape, torch.ones_like(output), None)) * 2:
        network.forward(x, None, None, False)
        use()
    training, inference = (True, tf32, tf32), (False, tf32, tf32)
    # the first way back has the graph of the pass before
    assert seen == [training, inference, training, inference, inference, training, inference, training]


SIXTEEN = {"torch-cuda-fp16": "float16", "torch-cuda-bf16": "bfloat16"}


@pytest.fixture(params=SIXTEEN)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend in 16 bits, which computes on the processor here: what differs on CUDA is the device only."""
    variant = request.param.replace("torch-", "").replace("-", "_").upper()
    monkeypatch.setattr(peer, variant, peer.TorchBackend("cpu", SIXTEEN[request.param]))
    return str(request.param)


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
@pytest.mark.parametrize(("direction", "layers"), [("forward", 2), ("train", 1)])
def test_in_16_bits_results_are_float32_and_within_the_tolerance(
    narrow: str, cell: str, direction: str, layers: int
) -> None:
    found = verify(Case(cell, narrow, "float32", direction, 7, 5, 6, 33, layers, bidirectional=True, lengths="ragged"))
    if (narrow, cell, direction) == ("torch-cuda-bf16", "rnn_relu", "train"):  # at too many kinks
        assert found.status == "skipped" and "change gradients" in found.reason
        return
    assert found.ok, found.reason
    assert found.error > 2.0**-12  # it did compute in 16 bits


def test_gradients_of_two_layers_in_bfloat16_tell_nothing(narrow: str) -> None:
    found = verify(Case("lstm", narrow, "float32", "train", 7, 5, 6, 33, num_layers=2))
    assert found.status == ("skipped" if narrow == "torch-cuda-bf16" else "ok"), found.reason


def test_in_16_bits_swapped_gates_are_still_wrong(narrow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = peer.TorchBackend.prepare

    def swapped(self: Any, spec: Spec, params: dict[str, np.ndarray]) -> Any:
        H = spec.hidden_size
        return prepare(self, spec, {n: np.roll(w, H, axis=0) for n, w in params.items()})

    monkeypatch.setattr(peer.TorchBackend, "prepare", swapped)
    assert verify(Case("lstm", narrow, "float32", "train", 5, 3, 4, 16)).status == "wrong"


def test_in_16_bits_there_is_no_float64(narrow: str) -> None:
    found = verify(Case("lstm", narrow, "float64"))
    assert found.status == "skipped"
    assert found.reason.endswith(
        f"only float32 networks are computed in {SIXTEEN[narrow]} here, but the dtype is float64"
    )
