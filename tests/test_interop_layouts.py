"""Layouts are permutations: what goes out comes back bit by bit, and every block lies where the other library wants it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rnnbench import cells, params
from rnnbench.interop import layouts

H, I = 3, 2


def network(cell, **options):
    spec = params.Spec(cells.find(cell), I, H, dtype="float64", **options)
    return spec, params.initialise(spec, 1)


def one_bias(arrays):
    """What libraries with one bias can keep: the second is zero."""
    return {name: np.zeros_like(a) if name.startswith("bias_hh") else a for name, a in arrays.items()}


def same(got, expected):
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", [name for name in cells.BUILT_IN if name != "lstm_peephole"])
def test_keras_round_trip(cell, bias):
    spec, arrays = network(cell, bias=bias, num_layers=2, bidirectional=True)
    arrays = arrays if cell == "gru" else one_bias(arrays)
    back = {}
    for _, _, suffix in spec.suffixes():
        back |= layouts.from_keras(spec.cell, layouts.to_keras(spec, arrays, suffix), suffix)
    same(back, arrays)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", cells.BUILT_IN)
def test_onnx_round_trip(cell, bias):
    spec, arrays = network(cell, bias=bias, num_layers=2, bidirectional=True)
    back = {}
    for layer in range(2):
        back |= layouts.from_onnx(spec.cell, layouts.to_onnx(spec, arrays, layer), layer)
    same(back, arrays)


@pytest.mark.parametrize("cell", cells.BUILT_IN)
def test_tf1_round_trip(cell):
    spec, arrays = network(cell)
    if cell == "gru":  # only the candidate has a second bias
        arrays["bias_hh_l0"][: 2 * H] = 0
    else:
        arrays = one_bias(arrays)
    same(layouts.from_tf1(spec.cell, layouts.to_tf1(spec, arrays)), arrays)


def marked(cell):
    """Parameters of which every block holds a number of its gate: the n-th letter of the alphabet is n."""
    spec, arrays = network(cell)
    for name in arrays:
        gates = spec.cell.input_gates if "_ih" in name else spec.cell.recurrent_gates
        if name.startswith("p_"):
            arrays[name][:] = ord(name[2])
        else:
            arrays[name][:] = np.repeat([ord(g) for g in gates], H).reshape(-1, *[1] * (arrays[name].ndim - 1))
    return spec, arrays


def letters(array, axis):
    """The gates along an axis, one letter a block."""
    other = tuple(a for a in range(array.ndim) if a != axis)
    values = array.mean(axis=other).reshape(-1, H)
    assert (values == values[:, :1]).all()
    return "".join(chr(int(v)) for v in values[:, 0])


@pytest.mark.parametrize(("cell", "order"), [("lstm", "ifgo"), ("gru", "zrn"), ("gru_reset_before", "zrn")])
def test_keras_puts_gates_in_its_order(cell, order):
    spec, arrays = marked(cell)
    kernel, recurrent, bias = layouts.to_keras(spec, arrays)
    assert (letters(kernel, 1), letters(recurrent, 1)) == (order, order)
    assert (kernel.shape, recurrent.shape) == ((I, len(order) * H), (H, len(order) * H))
    assert letters(bias if cell == "gru" else bias[None] / 2, 1) == order


@pytest.mark.parametrize(("cell", "order"), [("lstm_peephole", "iofg"), ("gru", "zrn"), ("rnn_tanh", "h")])
def test_onnx_puts_gates_in_its_order(cell, order):
    spec, arrays = marked(cell)
    node = layouts.to_onnx(spec, arrays)
    assert letters(node["W"], 1) == letters(node["R"], 1) == order
    assert letters(node["B"], 1) == order + order
    assert "P" not in node or letters(node["P"], 1) == "iof"


def test_tf1_puts_gates_in_its_order():
    spec, arrays = marked("lstm_peephole")
    variables = layouts.to_tf1(spec, arrays)
    assert letters(variables["kernel"], 1) == "igfo" and variables["kernel"].shape == (I + H, 4 * H)
    assert [chr(int(variables[f"w_{g}_diag"][0])) for g in "ifo"] == list("ifo")
    spec, arrays = marked("gru_reset_before")
    variables = layouts.to_tf1(spec, arrays)
    assert letters(variables["gates/kernel"], 1) == "rz" and letters(variables["candidate/kernel"], 1) == "n"


def read_keras(cell, arrays):
    return layouts.from_keras(cell, list(arrays.values()))


def keras_arrays(spec, params):
    return dict(zip(("kernel", "recurrent_kernel", "bias"), layouts.to_keras(spec, params), strict=True))


FORMATS = {
    "keras": (("lstm", "gru", "gru_reset_before", "rnn_tanh"), keras_arrays, read_keras),
    "onnx": (("lstm", "lstm_peephole", "gru", "rnn_tanh"), layouts.to_onnx, layouts.from_onnx),
    "tf1": (("lstm", "lstm_peephole", "lstm[coupled]", "gru", "gru_reset_before"), layouts.to_tf1, layouts.from_tf1),
}
CUT = [
    (*FORMATS[name][1:], spec, arrays) for name in FORMATS for spec, arrays in (network(c) for c in FORMATS[name][0])
] + [(layouts.to_tf1, layouts.from_tf1, *network("lstm", proj_size=2))]

# how wide the input and the projection are; of two kernels that disagree the next test knows
TOLD_BY_FEW = {("kernel", 0), ("W", 2), ("projection/kernel", 1), ("gates/kernel", 0), ("candidate/kernel", 0)}


@pytest.mark.parametrize(("out", "back", "spec", "params"), CUT)
def test_an_array_that_is_cut_is_named_with_both_shapes(out, back, spec, params):
    arrays = out(spec, params)
    for name, array in arrays.items():
        for axis in range(array.ndim):
            if (name, axis) in TOLD_BY_FEW:
                continue
            cut = array.take(range(array.shape[axis] - 1), axis)
            needed = f"{name} has shape {cut.shape}, expected {array.shape}"
            with pytest.raises(ValueError, match=re.escape(needed)):
                back(spec.cell, arrays | {name: cut})
        with pytest.raises(ValueError, match=rf"{name} has shape \(\), expected \(.+\)"):
            back(spec.cell, arrays | {name: np.float64(1)})


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
def test_two_kernels_that_disagree_about_the_input_are_refused(cell):
    spec, params = network(cell)
    arrays = layouts.to_tf1(spec, params)
    arrays["gates/kernel"] = arrays["gates/kernel"][:-1]
    with pytest.raises(ValueError, match=r"candidate/.*kernel has shape \(\d, 3\), expected \(\d, 3\)"):
        layouts.from_tf1(spec.cell, arrays)


def test_where_no_array_tells_a_size_it_is_named():
    with pytest.raises(
        ValueError, match=r"kernel .* \(7, 11\), expected \(input_size \+ hidden_size, 4\*hidden_size\)"
    ):
        layouts.from_tf1(cells.find("lstm"), {"kernel": np.ones((7, 11)), "bias": np.ones(11)})


def test_a_users_cell_has_no_layout_elsewhere():
    @cells.cell
    def own(x, R, h):
        return cells.tanh(x.a + R.b @ h)

    with pytest.raises(ValueError, match="the gates a of the cell own are not those of an RNN, LSTM or GRU"):
        layouts.family(own)
