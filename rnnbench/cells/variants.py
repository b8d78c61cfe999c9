"""Variants of the RNN, LSTM and GRU, named by options in brackets: what other libraries offer besides the plain cells.

    rnn[activation=leaky_relu:0.1]
    lstm[clip=0.5,peepholes]
    gru[candidate=relu,gate=hard_sigmoid:0.2:0.5,reset=before]

A variant is a cell like any other: its equation below is traced once, with the options as constants. Its name is canonical (options
sorted, defaults left out, an activation's parameters written out), and for each name there is one object. A variant that equals a
built-in cell is that cell: `lstm[peepholes]` is `lstm_peephole`.

    clip=C           the input of each gate's activation, with biases and peepholes, is limited to +-C       ONNX's clip
    cell_clip=C      the new cell state is limited to +-C before anything reads it                           TF1's cell_clip
    peepholes        i and f see the old cell state, o the new one, through a vector each
    input_forget     f = 1 - i                                                                ONNX Runtime's input_forget
    coupled          i = 1 - f                                                      TF1's CoupledInputForgetGateLSTMCell
    reset=before     the reset gate multiplies h instead of the recurrent product             ONNX, TF1; Keras on request
    activation, gate, candidate, output   functions named in `activations`
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..spelling import unknown
from . import activations, library
from .activations import activation
from .graph import maximum, minimum
from .trace import Cell

Options = dict[str, Any]


def _rnn(options):
    act, clip = activation(options["activation"]), _limit(options["clip"])

    def rnn(x, R, h):
        return act(clip(x.h + R.h @ h))

    return rnn


def _lstm(options):
    gate, candidate, output = (activation(options[name]) for name in ("gate", "candidate", "output"))
    clip, clip_cell = _limit(options["clip"]), _limit(options["cell_clip"])
    peepholes, input_forget, coupled = (options[name] for name in ("peepholes", "input_forget", "coupled"))

    def lstm(x, R, h, c, p=None, *, forget_bias=0.0):
        if not coupled:
            i = gate(clip(x.i + R.i @ h + (p.i * c if peepholes else 0.0)))
        if not input_forget:
            f = gate(clip(x.f + R.f @ h + (p.f * c if peepholes else 0.0) + forget_bias))
        if coupled:
            i = 1 - f
        if input_forget:
            f = 1 - i
        g = candidate(clip(x.g + R.g @ h))
        c = clip_cell(f * c + i * g)
        o = gate(clip(x.o + R.o @ h + (p.o * c if peepholes else 0.0)))
        return o * output(c), c

    return _without(lstm, *["p"] * (not peepholes), *["forget_bias"] * input_forget)


def _gru(options):
    gate, candidate, clip = activation(options["gate"]), activation(options["candidate"]), _limit(options["clip"])
    before = options["reset"] == "before"

    def gru(x, R, h):
        r = gate(clip(x.r + R.r @ h))
        z = gate(clip(x.z + R.z @ h))
        n = candidate(clip(x.n + (R.n @ (r * h) if before else r * (R.n @ h))))
        return (1 - z) * n + z * h

    return gru


def _limit(bound):
    return (lambda a: a) if bound is None else (lambda a: minimum(maximum(a, -bound), bound))


def _without(equation: Callable[..., Any], *absent: str) -> Callable[..., Any]:
    """The equation with the arguments `absent`, which have defaults, removed from its signature."""
    signature = inspect.signature(equation)
    present = [q for q in signature.parameters.values() if q.name not in absent]
    present = [q if q.kind is q.KEYWORD_ONLY else q.replace(default=q.empty) for q in present]
    equation.__signature__ = signature.replace(parameters=present)  # type: ignore[attr-defined]
    return equation


# family -> its equation, its options with their defaults
FAMILIES: dict[str, tuple[Callable[[Options], Callable[..., Any]], Options]] = {
    "rnn": (_rnn, {"activation": "tanh", "clip": None}),
    "lstm": (
        _lstm,
        {
            "candidate": "tanh",
            "cell_clip": None,
            "clip": None,
            "coupled": False,
            "gate": "sigmoid",
            "input_forget": False,
            "output": "tanh",
            "peepholes": False,
        },
    ),
    "gru": (_gru, {"candidate": "tanh", "clip": None, "gate": "sigmoid", "reset": "after"}),
}
BUILT_IN_AS = {
    "rnn[]": library.rnn_tanh,
    "rnn[activation=relu]": library.rnn_relu,
    "lstm[]": library.lstm,
    "lstm[peepholes]": library.lstm_peephole,
    "gru[]": library.gru,
    "gru[reset=before]": library.gru_reset_before,
}
NAME = re.compile(r"(?P<family>[^\[\]/]*)\[(?P<options>[^\[\]]*)\]")


class Variant(Cell):
    """A cell of a `family`, made with `options`. It is copied and pickled by its name."""

    def __init__(self, fn: Callable[..., Any], family: str, options: Options) -> None:
        super().__init__(fn)
        self.family, self.options = family, options

    def __reduce__(self) -> Any:
        return variant, (self.name,)


def variant(name: str) -> Cell:
    """The cell called `name`, as `family[option,option=value]`.

    Raises ValueError, with what would work, for an unknown family, option or value.
    """
    return make(*_read(name))


def options_of(cell: Cell) -> tuple[str, Options]:
    """The family of a cell and all its options: numbers, flags, and names of activations with their parameters.

    Raises ValueError for a user-defined cell, of which only the equation is known.
    """
    if isinstance(cell, Variant):
        return cell.family, dict(cell.options)
    for name, built_in in BUILT_IN_AS.items():
        if cell is built_in:
            family, given = _read(name)
            return family, FAMILIES[family][1] | given
    raise ValueError(f"the cell {cell.name} is user-defined, not a variant of {', '.join(FAMILIES)}")


def _read(name: str) -> tuple[str, Options]:
    """The family and the options that a name gives."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"a variant of a cell is named like lstm[peepholes,clip=0.5], not {name!r}")
    family = _one_of("family of cells", match["family"].strip(), FAMILIES)
    options: Options = {}
    for part in match["options"].split(","):
        if part.strip():
            option, _, value = (text.strip() for text in part.partition("="))
            _one_of(f"option of the {family}", option, FAMILIES[family][1])
            if option in options:
                raise ValueError(f"{name!r} gives {option} twice")
            options[option] = _value(option, value)
    return family, options


def make(family: str, options: Mapping[str, Any]) -> Cell:
    """The cell of a family with these options, in the form that `options_of` returns; options that are missing have their defaults.

    Raises ValueError if two options exclude each other.
    """
    defaults = FAMILIES[family][1]
    chosen = {name: options.get(name, default) for name, default in sorted(defaults.items())}
    if chosen.get("coupled") and chosen.get("input_forget"):
        raise ValueError(
            "coupled (i = 1 - f) and input_forget (f = 1 - i) exclude each other: one gate must be computed"
        )
    return _make(family, tuple(chosen.items()))


@lru_cache(maxsize=1024)
def _make(family: str, items: tuple[tuple[str, Any], ...]) -> Cell:
    equation, defaults = FAMILIES[family]
    name = f"{family}[{','.join(_text(o, value) for o, value in items if value != defaults[o])}]"
    if name in BUILT_IN_AS:
        return BUILT_IN_AS[name]
    fn = equation(dict(items))
    fn.__name__ = fn.__qualname__ = name
    return Variant(fn, family, dict(items))


def _value(option: str, text: str) -> Any:
    """The value of an option from its text. Raises ValueError for a text that the option does not allow."""
    if option in ("peepholes", "input_forget", "coupled"):
        if text:
            raise ValueError(f"{option} is written without a value, not {option}={text}")
        return True
    if not text:
        raise ValueError(f"{option} needs a value, as in {option}={_EXAMPLES.get(option, 'relu')}")
    if option in ("clip", "cell_clip"):
        bound = activations.number(option, text)
        if bound <= 0:
            raise ValueError(f"{option} must be a number above 0, not {text}")
        return bound
    if option == "reset":
        return _one_of("reset", text, ("before", "after"))
    return activations.canonical(text)


_EXAMPLES = {"clip": "0.5", "cell_clip": "3", "reset": "before"}


def _text(option: str, value: Any) -> str:
    if value is True:
        return option
    return f"{option}={activations.written(value) if isinstance(value, float) else value}"


def _one_of(what: str, name: str, known: Any) -> str:
    if name not in known:
        raise ValueError(unknown(what, name, known))
    return name
