"""A network that is saved and loaded is the same to the bit; files that are not sound are refused with a sentence."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

from rnnbench import RNN, cell, tanh
from rnnbench.interop import InteropError, load_npz, save_npz
from rnnbench.interop.npz import ABOUT


@cell
def own(x, R, h):
    return tanh(x.a + R.a @ h)


NETWORKS = {
    "plain": RNN("gru", 3, 4, backend="numpy"),
    "everything": RNN("lstm_peephole", 3, 4, 2, True, True, False, "numpy", "float64", seed=2, forget_bias=0.1),
    "projected": RNN("lstm[cell_clip=0.5]", 3, 4, backend="numpy", proj_size=2),
    "reverse": RNN("rnn[activation=leaky_relu:0.3]", 3, 4, backend="numpy", reverse=True),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "network.npz"
    save_npz(NETWORKS["plain"], path)
    return path


@pytest.mark.parametrize("rnn", NETWORKS.values(), ids=NETWORKS)
def test_round_trip(rnn, tmp_path):
    path = tmp_path / "network"  # the name is taken as it is, without .npz behind it
    save_npz(rnn, path)
    back = load_npz(path, "numpy")
    assert back.spec == rnn.spec and back.batch_first == rnn.batch_first and list(back.params) == list(rnn.params)
    for name, array in rnn.params.items():
        assert back.params[name].dtype == array.dtype
        np.testing.assert_array_equal(back.params[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["network"]


def test_nan_and_infinity_are_weights_too(tmp_path):
    rnn = RNN("rnn_tanh", 1, 2, backend="numpy")
    rnn.load({**rnn.params, "bias_ih_l0": [np.nan, -np.inf]})
    save_npz(rnn, tmp_path / "n")
    np.testing.assert_array_equal(load_npz(tmp_path / "n", "numpy").params["bias_ih_l0"], rnn.params["bias_ih_l0"])


def test_a_users_cell_is_given_again_and_has_to_be_the_same(tmp_path):
    save_npz(RNN(own, 2, 3, backend="numpy"), tmp_path / "n")
    assert load_npz(tmp_path / "n", "numpy", cell=own).spec.cell is own
    with pytest.raises(InteropError, match="user-defined cell 'own'; pass the cell"):
        load_npz(tmp_path / "n", "numpy")
    with pytest.raises(InteropError, match="a cell own whose equations are not those of rnn_relu now"):
        load_npz(tmp_path / "n", "numpy", cell="rnn_relu")


def test_a_number_may_have_the_name_of_a_converters_argument(tmp_path):
    @cell
    def scaled(x, R, h, *, arrays=1.0):
        return tanh(arrays * x.a + R.a @ h)

    rnn = RNN(scaled, 2, 3, backend="numpy", arrays=0.5)
    save_npz(rnn, tmp_path / "n")
    assert load_npz(tmp_path / "n", "numpy", cell=scaled).spec == rnn.spec


def test_a_users_cell_called_as_a_built_in_one_is_asked_for(tmp_path):
    @cell
    def lstm(x, R, h):
        return tanh(x.a + R.a @ h)

    save_npz(RNN(lstm, 2, 3, backend="numpy"), tmp_path / "n")
    with pytest.raises(InteropError, match=r"those of lstm now; if it is a cell of your own, .* load_npz\(path, cell="):
        load_npz(tmp_path / "n", "numpy")
    assert load_npz(tmp_path / "n", "numpy", cell=lstm).spec.cell is lstm


def test_a_backend_there_is_not_is_no_damage(saved):
    with pytest.raises(ValueError, match="^unknown backend 'nunpy'; did you mean 'numpy'") as raised:
        load_npz(saved, "nunpy")
    assert not isinstance(raised.value, InteropError)


def test_writing_that_fails_leaves_what_was_there(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        save_npz(NETWORKS["plain"], saved)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


def rewrite(path, about=(), **changed):
    """The file with other entries; None leaves one out."""
    with np.load(path) as stored:
        arrays = dict(stored)
    if about:
        arrays[ABOUT] = np.array(json.dumps(json.loads(str(arrays[ABOUT])) | dict(about)))
    arrays |= changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "is not an .npz file, or the end of it is missing"),
        (lambda p: p.write_bytes(b""), "is not an .npz file"),
        (lambda p: p.write_bytes(pickle.dumps({"weight_ih_l0": 1})), "is not an .npz file"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"NUMPY", b"NOMPY")), "is damaged, or holds more than plain"),
        (lambda p: np.savez(p, **{ABOUT: np.array([{}], dtype=object)}), "holds more than plain arrays"),
        (lambda p: np.savez(p, weights=np.ones(3)), "was not written by save_npz"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("a.txt", "hello"), "was not written by save_npz"),
        (lambda p: rewrite(p, **{ABOUT: np.array("{")}), "was not written by save_npz"),
        (lambda p: rewrite(p, **{ABOUT: np.array("[]")}), "was not written by save_npz"),
        (lambda p: rewrite(p, {"cell": 5}), "was not written by save_npz"),
        (lambda p: rewrite(p, {"cell": None}), "was not written by save_npz"),
        (lambda p: rewrite(p, {"cell": []}), "was not written by save_npz"),
        (lambda p: rewrite(p, {"cell": "lstm[surprise=1]"}), "does not load: unknown option of the lstm 'surprise'"),
        (lambda p: rewrite(p, {"version": 2}), "has version 2 of the format; this rnnbench reads version 1"),
        (lambda p: rewrite(p, {"surprise": 2}), "does not load: .*surprise"),
        (lambda p: rewrite(p, {"cell": "/tmp/evil.py:own"}), "a network of a user-defined cell '/tmp/evil.py:own'"),
        (lambda p: rewrite(p, {"digest": "0"}), "was made with a cell gru whose equations are not those of gru now"),
        (lambda p: rewrite(p, weight_ih_l0=None), "is damaged: .*weight_ih_l0"),
        (lambda p: rewrite(p, weight_hh_l0=None), "do not fit each other: the parameter 'weight_hh_l0' .* is missing"),
        (lambda p: rewrite(p, weight_hh_l0=np.ones((12, 3), "f4")), "do not fit each other: .*weight_hh_l0"),
        (lambda p: rewrite(p, weight_ih_l0=np.ones((13, 3), "f4")), "needs rows in 3 equal blocks"),
        (lambda p: rewrite(p, weight_ih_l0=np.ones((12, 3), "f2")), "are float16; convert them to float32 or float64"),
    ],
)
def test_what_is_not_sound_is_refused(saved, damage, sentence):
    damage(saved)
    with pytest.raises(InteropError, match=sentence):
        load_npz(saved, "numpy")


def test_a_bit_that_flipped_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    at = content.find(b"NUMPY", 400) + 200  # within an array's data
    content[at] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InteropError, match="is damaged"):
        load_npz(saved, "numpy")


def test_no_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "none.npz")


def test_arguments_in_the_wrong_order_are_told(saved, tmp_path):
    with pytest.raises(
        TypeError, match="the first argument must be the rnnbench.RNN to write or convert; got PosixPath"
    ):
        save_npz(tmp_path / "other.npz", load_npz(saved, "numpy"))
    assert not (tmp_path / "other.npz").exists()
    with pytest.raises(TypeError, match="int"):
        load_npz(3)
