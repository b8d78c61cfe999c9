"""Dense, Embedding and Recurrent: forward against plain products, backward against differences."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from rnnbench import RNN
from rnnbench.backends import threads
from rnnbench.tasks.layers import Dense, Embedding, Recurrent, Rows

RNG = np.random.default_rng(0)


def test_dense_is_a_product_and_a_bias() -> None:
    layer = Dense("output", 3, 4)
    params = layer.initialise(np.random.default_rng(0), "float32")
    assert {name: array.shape for name, array in params.items()} == {"output.weight": (4, 3), "output.bias": (4,)}
    assert all(array.dtype == np.float32 and np.abs(array).max() <= 3**-0.5 for array in params.values())
    x = RNG.standard_normal((5, 2, 3)).astype(np.float32)
    right = np.einsum("tbi,oi->tbo", x, params["output.weight"]) + params["output.bias"]
    np.testing.assert_allclose(layer.forward(params, x), right, rtol=1e-5)


def test_dense_backward_is_the_derivative() -> None:
    layer = Dense("output", 3, 4)
    params = layer.initialise(np.random.default_rng(0), "float64")
    x, dy = RNG.standard_normal((5, 2, 3)), RNG.standard_normal((5, 2, 4))
    dx, gradients = layer.backward(params, x, dy)
    # the layer is linear in each of its arguments, so a difference of any size is its derivative
    for name, array in {**params, "x": x}.items():
        direction = RNG.standard_normal(array.shape)
        moved = {**params, name: array + direction}
        change = layer.forward(moved, x + direction if name == "x" else x) - layer.forward(params, x)
        found = dx if name == "x" else gradients[name]
        assert np.sum(change * dy) == pytest.approx(np.sum(direction * found), rel=1e-12)


def test_dense_takes_any_layout_and_leaves_its_arguments() -> None:
    """Columns of larger arrays, arrays that may not be written, and x in another dtype than the weights."""
    layer = Dense("output", 3, 4)
    params = layer.initialise(np.random.default_rng(0), "float64")
    x, dy = RNG.standard_normal((5, 6))[:, ::2].astype(np.float32)[:, ::-1], RNG.standard_normal((4, 5)).T
    x.flags.writeable = dy.flags.writeable = False
    kept = x.copy(), dy.copy()
    np.testing.assert_allclose(layer.forward(params, x), x @ params["output.weight"].T + params["output.bias"])
    dx, gradients = layer.backward(params, x, dy)
    np.testing.assert_allclose(dx, dy @ params["output.weight"])
    np.testing.assert_allclose(gradients["output.weight"], dy.T @ x)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(dy, kept[1])


def test_dense_refuses_dtypes_that_its_kernels_would_misread() -> None:
    layer = Dense("output", 3, 4)
    params = layer.initialise(np.random.default_rng(0), "float32")
    x = np.ones((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"^out must be float32 like output.weight, not float64$"):
        layer.forward(params, x, np.empty((5, 4)))
    for dtype in (np.int64, np.float16):
        cast = {name: array.astype(dtype) for name, array in params.items()}
        with pytest.raises(TypeError, match=f"^output.weight must be float32 or float64, not {dtype.__name__}$"):
            layer.forward(cast, x)
        with pytest.raises(TypeError, match=f"^output.weight must be float32 or float64, not {dtype.__name__}$"):
            layer.backward(cast, x, np.ones((5, 4), np.float32))


def test_an_embedding_looks_up_what_a_one_hot_product_would_give() -> None:
    layer = Embedding("embedding", 6, 4)
    params = layer.initialise(np.random.default_rng(0), "float64")
    tokens = np.array([[2, 5], [0, 2]])
    np.testing.assert_array_equal(layer.forward(params, tokens), np.eye(6)[tokens] @ params["embedding.weight"])


def test_an_embeddings_gradient_is_that_of_the_one_hot_product() -> None:
    layer = Embedding("embedding", 6, 4)
    tokens, dy = np.array([[2, 5], [0, 2], [2, 5]]), RNG.standard_normal((3, 2, 4))
    gradient = layer.backward(tokens, dy)["embedding.weight"]
    assert isinstance(gradient, Rows)
    np.testing.assert_array_equal(gradient.index, [0, 2, 5])
    right = np.einsum("tbw,tbe->we", np.eye(6)[tokens], dy)
    np.testing.assert_allclose(gradient.dense(), right, rtol=1e-12)
    assert not gradient.dense()[[1, 3, 4]].any()


@pytest.mark.parametrize("shape", [(1, 4), (6, 2), (3, 3), (3, 2, 4)])
def test_an_embeddings_gradient_has_a_row_for_each_token(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^dy of the layer embedding must be \(3, 4\), not \("):
        Embedding("embedding", 6, 4).backward(np.array([0, 2, 5]), np.ones(shape))


@pytest.mark.parametrize("mistake", ["every word", "the wrong word", "the last one only"])
def test_the_check_of_an_embedding_sees_a_wrong_gradient(mistake: str) -> None:
    tokens, dy = np.array([[2, 5], [0, 2]]), RNG.standard_normal((2, 2, 4))
    right = np.einsum("tbw,tbe->we", np.eye(6)[tokens], dy)
    wrong = np.zeros_like(right)
    for (t, b), word in np.ndenumerate(tokens):
        if mistake == "every word":  # the word's number as a factor of all columns
            wrong += word * dy[t, b]
        elif mistake == "the wrong word":
            wrong[(word + 1) % 6] += dy[t, b]
        else:
            wrong[word] = dy[t, b]
    assert not np.allclose(wrong, right)


def test_a_recurrent_layer_computes_with_what_was_loaded_last() -> None:
    layer = Recurrent("rnn", RNN("gru", 3, 4, backend="numpy", dtype="float64"))
    params = layer.initialise()
    assert set(params) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"}
    x = RNG.standard_normal((5, 2, 3))
    before = layer.infer(x)[0]
    params["rnn.weight_ih_l0"] *= 2
    np.testing.assert_array_equal(layer.infer(x)[0], before)
    layer.load(params)
    output, final, tape = layer.forward(x)
    np.testing.assert_array_equal(output, layer.rnn(x)[0])
    assert not np.allclose(output, before)
    dx, (dh,), gradients = layer.backward(tape, np.ones_like(output))
    right = layer.rnn.backward(tape, np.ones_like(output))
    np.testing.assert_array_equal(dx, right["x"])
    np.testing.assert_array_equal(dh, right["h_0"])
    assert set(gradients) == set(params)


def test_batch_first_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_first=False"):
        Recurrent("rnn", RNN("gru", 3, 4, backend="numpy", batch_first=True))


@pytest.mark.parametrize(("backend", "expected"), [("numpy", {1}), ("numba-cpu", None)])
def test_blas_has_one_thread_in_a_network_of_numpys_and_as_many_as_before_afterwards(
    backend: str, expected: set[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, seen = Recurrent("rnn", RNN("rnn_tanh", 3, 4, backend=backend)), []
    threads._controller.cache_clear()  # other tests may have loaded another BLAS since it was made
    before = blas_threads()
    for name in ("forward", "__call__", "backward"):
        real = getattr(RNN, name)
        monkeypatch.setattr(RNN, name, lambda *a, real=real: (seen.append(blas_threads()), real(*a))[1])
    x = np.ones((2, 1, 3), np.float32)
    output, _, tape = layer.forward(x)
    layer.infer(x)
    layer.backward(tape, output)
    assert seen == 3 * [expected or before] and blas_threads() == before


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
