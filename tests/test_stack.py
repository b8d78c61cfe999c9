"""Layers and directions: what each layer is handed, what is joined, and the weights' way from gates to blocks and back."""

from __future__ import annotations

from typing import Any

import cell_zoo
import numpy as np
import pytest

from rnnbench import RNN, memory
from rnnbench.backends.base import Arrangement, LayerWeights, input_spans
from rnnbench.backends.stack import Stack
from rnnbench.cells import BUILT_IN, program
from rnnbench.params import Spec, initialise, shapes

T, B, I, H = 3, 2, 4, 5


class Recorder:
    """A layer that writes its own number everywhere and keeps what it was given."""

    def __init__(self, spec: Spec, number: int) -> None:
        self.spec, self.number = spec, number

    def forward(self, x, state, lengths, training, output, column):
        self.x, self.lengths, self.column = x, lengths, column
        self.state = [s.copy() for s in state]
        output[:, :, column : column + H] = self.number
        for s in state:
            s += self.number
        return Kept(10) if training else None

    def backward(self, tape, doutput, column, dstate, dx):
        assert isinstance(tape, Kept)
        self.doutput, self.dstate, self.back_column = doutput, [d.copy() for d in dstate], column
        dx += self.number
        part = program(self.spec.cell, False)
        P, products = len(part.pre), sum(p.recurrent is not None for p in part.pre)
        weights = LayerWeights(
            *(np.full(s, float(self.number)) for s in ((P, H, dx.shape[2]), (products, H, H), (P, H), (0, H)))
        )
        for d in dstate:
            d += self.number
        return weights


class Kept:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


@pytest.fixture
def stack() -> Stack:
    spec = Spec(BUILT_IN["lstm"], I, H, num_layers=2, bidirectional=True, dtype="float64")
    numbers = iter((1, 2, 3, 4))
    return Stack(spec, initialise(spec, 0), lambda spec, weights, reverse: Recorder(spec, next(numbers)))


def layers(stack: Stack) -> list[Any]:
    return [layer for directions in stack.layers for layer in directions]


def test_a_layer_reads_the_output_of_both_directions_below(stack):
    x, state = np.ones((T, B, I)), tuple(np.arange(4.0).reshape(4, 1, 1) * 10 + np.zeros((4, B, H)) for _ in "hc")
    output, final, tape = stack.forward(x, state, None, training=True)
    assert [layer.column for layer in layers(stack)] == [0, H, 0, H]
    for layer in layers(stack)[:2]:
        np.testing.assert_array_equal(layer.x, x)
    for layer in layers(stack)[2:]:
        assert layer.x.shape == (T, B, 2 * H) and (layer.x[:, :, :H] == 1).all() and (layer.x[:, :, H:] == 2).all()
    assert (output[:, :, :H] == 3).all() and (output[:, :, H:] == 4).all()
    for h, given in zip(final, state, strict=True):
        assert h.shape == (4, B, H) and h[:, 0, 0].tolist() == [1, 12, 23, 34]
        assert given[:, 0, 0].tolist() == [0, 10, 20, 30]  # the caller's own are left alone
    assert tape.nbytes == 4 * 10 + T * B * 2 * H * 8  # the layers' tapes and what lies between them
    assert stack.forward(x, state, None, training=False)[2] is None


def test_gradients_go_down_through_both_directions_of_each_layer(stack):
    *_, tape = stack.forward(np.ones((T, B, I)), None, None, training=True)
    doutput = np.full((T, B, 2 * H), 7.0)
    dstate = tuple(np.arange(4.0).reshape(4, 1, 1) * 10 + np.zeros((4, B, H)) for _ in "hc")
    gradients = stack.backward(tape, doutput, dstate)
    first, second, third, fourth = layers(stack)
    assert (third.doutput == 7).all() and fourth.doutput is third.doutput
    assert (first.doutput == 3 + 4).all() and (second.doutput == 3 + 4).all() and first.doutput.shape == (T, B, 2 * H)
    assert [layer.back_column for layer in layers(stack)] == [0, H, 0, H]
    assert [layer.dstate[1][0, 0] for layer in layers(stack)] == [0, 10, 20, 30]
    assert (gradients["x"] == 1 + 2).all() and gradients["x"].shape == (T, B, I)
    assert dstate[0][:, 0, 0].tolist() == [0, 10, 20, 30]
    assert gradients["h_0"][:, 0, 0].tolist() == gradients["c_0"][:, 0, 0].tolist() == [1, 12, 23, 34]
    for number, (_, _, suffix) in enumerate(stack.spec.suffixes(), start=1):
        assert (gradients[f"weight_hh{suffix}"] == number).all()
    assert {n: g.shape for n, g in gradients.items() if n in shapes(stack.spec)} == shapes(stack.spec)


def test_padding_is_cleared_before_any_layer_sees_it(stack):
    x, doutput, lengths = np.full((T, B, I), np.nan), np.full((T, B, 2 * H), np.nan), np.array([2, 0])
    x[:2, 0] = doutput[:2, 0] = 5.0
    *_, tape = stack.forward(x, None, lengths, training=True)
    stack.backward(tape, doutput, None)
    assert np.isnan(x[2, 0]).all()  # the caller's own is left alone
    for layer in layers(stack)[:2]:
        assert (layer.x[:2, 0] == 5).all() and not layer.x[2:, 0].any() and not layer.x[:, 1].any()
    for layer in layers(stack)[2:]:
        assert (layer.doutput[:2, 0] == 5).all() and not layer.doutput[2:, 0].any() and not layer.doutput[:, 1].any()
        assert layer.lengths.tolist() == [2, 0]


def test_layers_get_the_longest_rows_first_and_callers_their_own_order(stack):
    rows, lengths, order = np.arange(4.0), np.array([1, 3, 0, 3]), [1, 3, 0, 2]
    x, doutput = np.broadcast_to(rows[:, None], (3, 4, I)), np.broadcast_to(rows[:, None], (3, 4, 2 * H))
    state, dstate = ([np.broadcast_to(k * rows[:, None], (4, 4, H)) for k in (1, 2)] for _ in range(2))
    output, final, tape = stack.forward(x, tuple(state), lengths, training=True)
    gradients = stack.backward(tape, doutput, tuple(dstate))
    for layer in layers(stack):
        assert layer.lengths.tolist() == [3, 3, 1, 0]
        for kept in (layer.state, layer.dstate):
            assert all((s[:, 0] == k * rows[order]).all() for s, k in zip(kept, (1, 2), strict=True))
    assert (layers(stack)[0].x[0, :, 0] == [1, 3, 0, 0]).all() and (
        layers(stack)[3].doutput[0, :, 0] == [1, 3, 0, 0]
    ).all()
    # a row's state and its gradient have grown by the layer's number alone, wherever the row was meanwhile
    for layer in range(4):
        assert (final[0][layer, :, 0] == rows + layer + 1).all() and (
            final[1][layer, :, 0] == 2 * rows + layer + 1
        ).all()
        assert (gradients["c_0"][layer, :, 0] == 2 * rows + layer + 1).all()
    assert output.shape == (3, 4, 2 * H) and gradients["x"].shape == x.shape


@pytest.mark.parametrize("lengths", [[3, 2, 3, 3], [3, 2, 1, 0]], ids=["little padding", "sorted already"])
def test_rows_stay_where_sorting_them_saves_nothing(stack, lengths):
    x = np.ones((3, 4, I))
    *_, tape = stack.forward(x, None, np.array(lengths), training=True)
    stack.backward(tape, np.ones((3, 4, 2 * H)), None)
    inside = np.arange(3)[:, None] < lengths
    for layer in layers(stack):
        assert layer.lengths.tolist() == lengths
    for seen in (layers(stack)[0].x, layers(stack)[3].doutput):
        assert (seen == inside[:, :, None]).all()
    assert x.all()


def test_results_come_back_in_the_order_of_the_rows(stack):
    for layer in layers(stack):  # each hands on what it gets
        layer.forward = lambda x, state, lengths, training, output, column: output.__setitem__(..., x[:, :, :1])
    x = np.arange(12.0).reshape(3, 4, 1) * np.ones(I)
    output, _, _ = stack.forward(x, None, np.array([2, 3, 1, 3]), training=False)
    assert output[:, :, 0].tolist() == [[0, 1, 2, 3], [4, 5, 0, 7], [0, 9, 0, 11]]


def test_nothing_is_filled_in_with_zeros(stack):
    *_, tape = stack.forward(np.ones((T, B, I)), None, None, training=True)
    stack.backward(tape, None, None)
    for layer in layers(stack):
        assert not any(s.any() for s in (*layer.state, *layer.dstate)) and len(layer.state) == len(layer.dstate) == 2
    assert not layers(stack)[3].doutput.any()


@pytest.mark.parametrize("training", [False, True])
def test_memory_is_asked_for_before_the_first_layer_runs(stack, monkeypatch, training):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    monkeypatch.setattr(Recorder, "forward", lambda *_: pytest.fail("it ran"))
    x = np.broadcast_to(np.float64(1), (10**4, 10**3, I))
    with pytest.raises(MemoryError, match="the arrays of seq_len 10000, batch_size 1000, hidden_size 5 need "):
        stack.forward(x, None, None, training)


def test_training_asks_for_what_its_tape_takes(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "require", lambda needed, *_: asked.append(needed))
    rnn = RNN("lstm", 16, 16)
    *_, tape = rnn.forward(np.ones((50, 16, 16), np.float32))
    assert tape.nbytes < asked[-1] < 2 * tape.nbytes
    rnn(np.ones((50, 16, 16), np.float32))
    assert asked[-1] == 50 * 16 * 16 * 4


# --- weights: from gates to blocks and back ------------------------------------------------------------------------------

CELLS = BUILT_IN | cell_zoo.CELLS


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_way_back_is_the_transpose_of_the_way_in(cell, bias):
    spec, part = Spec(cell, I, H, bias=bias, dtype="float64"), program(cell, True)
    given = initialise(spec, 0)
    weights = Arrangement(part, spec).weights(given, "_l0")
    rng = np.random.default_rng(0)
    blocks = LayerWeights(
        *(rng.normal(size=getattr(weights, f).shape) for f in ("input", "recurrent", "bias", "vector"))
    )
    for block, pre in enumerate(part.pre):  # no input gate, no gradient of its weights
        if pre.input is None:
            blocks.input[block] = 0
    back = Arrangement(part, spec).gradients(blocks, "_l0")
    assert {name: g.shape for name, g in back.items()} == shapes(spec)
    forwards = sum(np.vdot(getattr(weights, f), getattr(blocks, f)) for f in ("input", "recurrent", "bias", "vector"))
    np.testing.assert_allclose(forwards, sum(np.vdot(given[name], back[name]) for name in given), rtol=1e-12)


def test_blocks_are_the_pre_activations_in_their_order():
    spec = Spec(BUILT_IN["gru"], I, H, dtype="float64")
    part = program(spec.cell, False)
    given = {name: np.zeros(shape) for name, shape in shapes(spec).items()}
    for gate, block in (("r", 0), ("z", 1), ("n", 2)):
        rows = slice(block * H, (block + 1) * H)
        given["weight_ih_l0"][rows], given["bias_ih_l0"][rows] = ord(gate), ord(gate)
        given["weight_hh_l0"][rows], given["bias_hh_l0"][rows] = -ord(gate), 1000 * ord(gate)
    weights = Arrangement(part, spec).weights(given, "_l0")
    assert [(p.input, p.recurrent) for p in part.pre] == [(None, "n"), ("r", "r"), ("z", "z"), ("n", None)]
    assert weights.input[:, 0, 0].tolist() == [0, ord("r"), ord("z"), ord("n")]
    assert weights.recurrent[:, 0, 0].tolist() == [-ord("n"), -ord("r"), -ord("z")]
    assert weights.bias[:, 0].tolist() == [1000 * ord("n"), 1001 * ord("r"), 1001 * ord("z"), ord("n")]
    assert input_spans(part) == [slice(1, 4)]


def test_input_spans_skip_blocks_without_an_input():
    spans = input_spans(program(cell_zoo.three_stages, False))
    assert spans == [slice(1, 3)]
    assert input_spans(program(cell_zoo.gapped, False)) == [slice(0, 1), slice(2, 4)]
    assert input_spans(program(BUILT_IN["lstm"], False)) == [slice(0, 4)]
    assert all(span.stop > span.start for c in CELLS.values() for span in input_spans(program(c, False)))
