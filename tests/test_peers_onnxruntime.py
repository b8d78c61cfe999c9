"""ONNX Runtime beyond the grid of cases that every peer runs: features of networks, rows of length 0, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
pytest.importorskip("onnx", reason="the package onnx is not installed")

import peer_checks  # noqa: E402
import users_cells  # noqa: E402

from rnnbench import RNN, cells  # noqa: E402
from rnnbench.backends import threads  # noqa: E402
from rnnbench.backends.peers import onnxruntime as peer  # noqa: E402
from rnnbench.bench.cases import Case  # noqa: E402
from rnnbench.bench.verify import verify  # noqa: E402
from rnnbench.params import Spec  # noqa: E402

FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "backward alone": ("lstm_peephole", {"reverse": True, "num_layers": 2}),
    "no bias": ("gru_reset_before", {"bias": False, "bidirectional": True}),
    "forget bias": ("lstm", {"forget_bias": 1.5}),
    "forget bias and no bias": ("lstm", {"forget_bias": 1.5, "bias": False, "num_layers": 2}),
    "nothing given": ("lstm", {"given": False}),
    "all rows empty": ("gru", {"lengths": peer_checks.EMPTY}),
    "no lengths": ("rnn_relu", {"lengths": None, "bidirectional": True, "num_layers": 3}),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_networks_agree_with_numpy(feature: str) -> None:
    cell, options = FEATURES[feature]
    assert peer_checks.disagreements("onnxruntime", cell, "float32", False, **options) == []


@pytest.mark.parametrize("fault", ["gates", "transposed", "empty rows"])
def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    case = Case("lstm", "onnxruntime", "float32", "forward", 5, 4, 6, 7, lengths="ragged")
    assert verify(case).ok
    right = peer.to_onnx

    def swapped(*arguments: Any) -> dict[str, np.ndarray]:
        arrays = right(*arguments)
        return arrays | {"W": np.roll(arrays["W"], 7, axis=1)}

    def transposed(*arguments: Any) -> dict[str, np.ndarray]:
        arrays = right(*arguments)
        return arrays | {
            "R": np.concatenate(np.swapaxes(arrays["R"].reshape(1, 4, 7, 7), 2, 3), 1)[None].reshape(1, 28, 7)
        }

    if fault == "empty rows":
        monkeypatch.setattr(peer.OnnxRuntimeNetwork, "_keep_empty_rows", lambda *arguments: None)
    else:
        monkeypatch.setattr(peer, "to_onnx", swapped if fault == "gates" else transposed)
    assert verify(case).status == "wrong"


def test_nothing_in_the_padding_is_used() -> None:
    for cell in ("rnn_tanh", "lstm", "gru"):
        options = {"bidirectional": True, "num_layers": 2}
        clean, dirty = (
            peer_checks.everything("onnxruntime", cell, "float32", False, padding=padding, **options)
            for padding in (0.0, np.nan)
        )
        for name, value in clean.items():
            np.testing.assert_array_equal(dirty[name], value, err_msg=f"{cell} {name}")


@pytest.mark.parametrize(
    ("cell", "options", "direction", "words"),
    [
        ("lstm", {}, "train", "it has no backward direction"),
        ("lstm", {"dtype": "float64"}, "forward", "implemented for float32, not for float64"),
        ("lstm", {"proj_size": 3}, "forward", "no projection"),
        ("lstm[coupled]", {}, "forward", "ONNX has no operator for the cell lstm[coupled]; it has rnn_tanh, rnn_relu"),
        (f"{users_cells.__file__}:slstm", {}, "forward", "no operator for the cell slstm"),
    ],
)
def test_what_is_lacking_is_said(cell: str, options: dict[str, Any], direction: str, words: str) -> None:
    reason = peer.why_unsupported(Spec(cells.find(cell), 3, 7, **options), direction)
    assert reason is not None and words in reason


def test_training_is_refused_where_it_is_asked_for() -> None:
    rnn = RNN("lstm", 3, 7, backend="onnxruntime")
    with pytest.raises(ValueError, match="cannot train this network: ONNX Runtime runs inference only"):
        rnn.forward(np.ones((2, 2, 3), np.float32))


def test_results_are_the_users_own_and_sizes_may_change() -> None:
    rnn, numpy = (RNN("gru", 3, 7, 2, True, backend=name) for name in ("onnxruntime", "numpy"))
    rng = np.random.default_rng(0)
    kept = []
    for shape in ((6, 4, 3), (2, 1, 3), (6, 4, 3), (6, 5, 3)):
        x = rng.random(shape, np.float32)
        x.flags.writeable = False
        kept.append((rnn(x), numpy(x)))
    for (output, state), (right, right_state) in kept:
        np.testing.assert_allclose(output, right, atol=1e-6)
        np.testing.assert_allclose(state[0], right_state[0], atol=1e-6)


def test_arrays_that_stay_bound_are_read_anew() -> None:
    """A call with the arrays of the one before binds nothing, and still computes with what is in them now."""
    rnn, numpy = (RNN("lstm", 3, 7, backend=name) for name in ("onnxruntime", "numpy"))
    rng = np.random.default_rng(0)
    x, other = rng.random((5, 4, 3), np.float32), rng.random((5, 4, 3), np.float32)
    state = tuple(rng.random((1, 4, 7), np.float32) for _ in "hc")
    lengths = np.array([5, 0, 3, 1])

    def agrees(x: np.ndarray, state: Any, lengths: np.ndarray | None) -> None:
        output, final, _ = rnn.network.forward(x, state, lengths, False)
        right, right_final = numpy(x, state, lengths)
        np.testing.assert_allclose(rnn.network.get(output), right, atol=1e-6)
        for one, two in zip(final, right_final, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)

    for given, start, ends in (
        (x, None, None),
        (x, None, lengths),
        (x, state, lengths),
        (other, state, None),
        (x, None, None),
    ):
        agrees(given, start, ends)
        x[:], state[0][:], lengths[:] = rng.random(x.shape), rng.random((1, 4, 7)), rng.integers(0, 6, 4)
        agrees(given, start, ends)


def test_threads_are_ours_and_spin_as_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2):
        monkeypatch.setattr(threads, "_chosen", count)
        network: Any = RNN("lstm", 3, 7, backend="onnxruntime").network
        options = network._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (count, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
        assert peer.describe().endswith(f", {count} thread{'s' * (count > 1)}")
