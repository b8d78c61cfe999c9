"""PyTorch's layers in and out: the same bits, and the same numbers computed."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.interop import InteropError, from_torch, to_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

T, B, I, H = 4, 3, 2, 5
MODULES = {
    "rnn": lambda: nn.RNN(I, H, dtype=torch.float64),
    "relu": lambda: nn.RNN(I, H, nonlinearity="relu", bidirectional=True),
    "lstm": lambda: nn.LSTM(I, H, num_layers=2, bidirectional=True, dropout=0.5).eval(),
    "lstm without bias": lambda: nn.LSTM(I, H, bias=False, batch_first=True, dtype=torch.float64),
    "lstm with projection": lambda: nn.LSTM(I, H, num_layers=2, bidirectional=True, proj_size=3),
    "gru": lambda: nn.GRU(I, H, num_layers=3, dtype=torch.float64),
}


@pytest.fixture(params=MODULES.values(), ids=list(MODULES))
def module(request):
    torch.manual_seed(1)
    return request.param()


def computed(module, rnn):
    """Output and final states of both for one input, ours first."""
    shape = (B, T, I) if rnn.batch_first else (T, B, I)
    x = np.random.default_rng(2).standard_normal(shape).astype(rnn.spec.dtype)
    with torch.inference_mode():
        output, state = module(torch.from_numpy(x))
    state = state if isinstance(state, tuple) else (state,)
    ours, ours_state = rnn(x)
    return [ours, *ours_state], [output.numpy(), *(s.numpy() for s in state)]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_in_and_out_again(module):
    rnn = from_torch(module, "numpy")
    back = to_torch(rnn)
    assert type(back) is type(module) and back.state_dict().keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert back.state_dict()[name].dtype == value.dtype and torch.equal(back.state_dict()[name], value), name
    for ours, theirs in zip(*computed(module, rnn), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14 if rnn.spec.dtype == "float64" else 1e-6)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_one_step_of_one_layer(kind):
    torch.manual_seed(1)
    module = getattr(nn, kind)(I, H, dtype=torch.float64)
    rnn = from_torch(module, "numpy")
    x = np.random.default_rng(2).standard_normal((1, B, I))
    with torch.inference_mode():
        state = module(torch.from_numpy(x[0]))
    for ours, theirs in zip(rnn(x)[1], state if isinstance(state, tuple) else (state,), strict=True):
        np.testing.assert_allclose(ours[0], theirs.numpy(), rtol=0, atol=1e-14)


def test_parameters_are_copies():
    module = nn.LSTM(I, H)
    rnn = from_torch(module, "numpy")
    before = rnn.params["weight_ih_l0"].copy()
    with torch.no_grad():
        module.weight_ih_l0.zero_()
        to_torch(rnn).weight_ih_l0.fill_(7)
    np.testing.assert_array_equal(rnn.params["weight_ih_l0"], before)


def test_a_forget_bias_goes_into_the_biases():
    rnn = RNN("lstm", I, H, num_layers=2, backend="numpy", dtype="float64", forget_bias=1.5)
    for ours, theirs in zip(*computed(to_torch(rnn), rnn), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


UTILS = nn.utils
REPARAMETRISED = {  # how, and the function of torch.nn.utils that undoes it
    "weight_norm": (UTILS.parametrizations.weight_norm, "parametrize.remove_parametrizations"),
    "spectral_norm": (UTILS.parametrizations.spectral_norm, "parametrize.remove_parametrizations"),
    "older weight_norm": (UTILS.weight_norm, "remove_weight_norm"),
    "older spectral_norm": (UTILS.spectral_norm, "remove_spectral_norm"),
    "pruning": (lambda module, name: prune.l1_unstructured(module, name, 0.5), "prune.remove"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize(("change", "cure"), REPARAMETRISED.values(), ids=REPARAMETRISED)
@pytest.mark.parametrize(
    ("kind", "name"), [("LSTM", "weight_ih_l0"), ("GRU", "weight_hh_l0"), ("GRUCell", "weight_hh")]
)
def test_a_reparametrised_module_is_refused_with_the_cure(change, cure, kind, name):
    torch.manual_seed(1)
    module = getattr(nn, kind)(I, H).eval()
    change(module, name)
    with pytest.raises(
        InteropError, match=f"'{name}' is reparametrised: .* with torch.nn.utils.{cure}\\(module, '{name}'"
    ):
        from_torch(module, "numpy")
    operator.attrgetter(cure)(UTILS)(module, name)
    rnn = from_torch(module, "numpy")
    np.testing.assert_array_equal(rnn.params[f"{name.removesuffix('_l0')}_l0"], getattr(module, name).detach())


@pytest.mark.parametrize(
    ("convert", "sentence"),
    [
        (lambda: from_torch(nn.Linear(2, 3)), "Linear is not an RNN, LSTM or GRU of torch.nn"),
        (lambda: from_torch(nn.GRU(I, H, 2, dropout=0.5)), r"dropout 0.5 .*; call module.eval\(\)"),
        (lambda: from_torch(nn.GRU(I, H, dtype=torch.bfloat16)), r"torch.bfloat16; convert it with module.float\(\)"),
        (lambda: from_torch(nn.LSTM(I, H, device="meta")), r'on the device "meta", .* module.to_empty\(device="cpu"\)'),
        (lambda: from_torch(nn.LSTM(I, H), "nunpy"), "unknown backend 'nunpy'"),
        (
            lambda: to_torch(RNN("lstm", I, H, proj_size=H, backend="numpy")),
            "fewer units only; proj_size and hidden_size are both 5",
        ),
        (
            lambda: to_torch(RNN("rnn_tanh", I, H, proj_size=3, backend="numpy")),
            "the output of an LSTM only, and the cell is rnn_tanh with proj_size 3",
        ),
        (lambda: to_torch(RNN("gru_reset_before", I, H, backend="numpy")), "no layer for the cell gru_reset_before"),
        (lambda: to_torch(RNN("lstm[clip=1]", I, H, backend="numpy")), r"no layer for the cell lstm\[clip=1\]"),
        (lambda: to_torch(RNN("lstm", I, H, reverse=True, backend="numpy")), "not backwards only"),
        (
            lambda: to_torch(RNN("lstm", I, H, bias=False, forget_bias=1.0, backend="numpy")),
            "make the RNN with bias=True",
        ),
    ],
)
def test_what_has_no_equal_is_refused(convert, sentence):
    with pytest.raises(InteropError, match=sentence):
        convert()


def test_what_is_made_is_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        module = to_torch(RNN("gru", 3, 4, backend="numpy"))
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


def test_tensors_that_record_gradients_are_their_numbers() -> None:
    module, x = torch.nn.LSTM(3, 4), torch.ones(2, 1, 3, requires_grad=True)
    rnn = RNN("lstm", 3, 4, backend="numpy")
    rnn.load(dict(module.named_parameters()))
    np.testing.assert_allclose(rnn(x)[0], module(x)[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"^x holds torch.bfloat16, which NumPy has not; convert it with .float\(\)$"):
        rnn(x.to(torch.bfloat16))
