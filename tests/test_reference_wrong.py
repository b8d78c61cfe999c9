"""Wrong references: a few words of the source replaced. The checks of the reference have to catch each of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from reference_checks import CELL_OF, KNOWN, PROBLEMS, check_gradients, check_known_answer, problem

from rnnbench import reference

# what is wrong, in which cell, what to replace by what, and the checks that see it. A mistake made alike forward and
# backward has consistent gradients: there only the known answers help.
WRONG = [
    ("gates swapped", "lstm", {"s_i, s_f,": "s_f, s_i,", "[da_i, da_f,": "[da_f, da_i,"}, "answers"),
    ("gates swapped", "lstm_peephole", {"s_g, s_o =": "s_o, s_g =", "da_g, da_o]": "da_o, da_g]"}, "answers"),
    ("gates swapped on the input's side", "gru", {"a_r, a_z, a_n =": "a_z, a_r, a_n ="}, "both"),
    ("gates swapped", "gru_reset_before", {"r = sigmoid(a_r + h @": "r = sigmoid(a_z + h @"}, "both"),
    ("gates swapped in the gradient", "gru", {"[da_r, da_z, dq_n]": "[da_z, da_r, dq_n]"}, "both"),
    ("R transposed", "rnn_tanh", {"h @ w.R.T": "h @ w.R", "dq @ w.R": "dq @ w.R.T", "dq.T @ h": "h.T @ dq"}, "answers"),
    ("R transposed", "rnn_relu", {"h @ w.R.T": "h @ w.R"}, "both"),
    ("R transposed in the gradient", "rnn_tanh", {"dq @ w.R": "dq @ w.R.T"}, "both"),
    ("R_n transposed", "gru_reset_before", {"(r * h) @ R_n.T": "(r * h) @ R_n"}, "both"),
    ("dR transposed", "rnn_tanh", {"dq.T @ h": "h.T @ dq"}, "both"),
    ("forget gate left out of dc", "lstm", {"dc = dc_new * f": "dc = dc_new"}, "both"),
    ("forget gate left out of dc", "lstm_peephole", {"dc = dc_new * f": "dc = dc_new"}, "both"),
    ("peepholes left out of dc", "lstm_peephole", {" + da_i * w.p_i + da_f * w.p_f": ""}, "both"),
    ("o looks at the old cell", "lstm_peephole", {"w.p_o * c_new": "w.p_o * c"}, "both"),
    *[
        ("recurrent part left out of dh", cell, {"return dq @ w.R,": "return 0 * h,"}, "both")
        for cell in ("rnn_tanh", "rnn_relu", "lstm", "lstm_peephole", "gru")
    ],
    ("recurrent part left out of dh", "gru_reset_before", {" + da_r @ R_r + da_z @ R_z + dm * r": ""}, "both"),
    ("forget bias left out", "lstm", {"s_f + forget_bias": "s_f"}, "answers"),
    ("z the other way round", "gru", {"(1 - z) * n + z * h": "z * n + (1 - z) * h"}, "both"),
    ("reset left out of dq", "gru", {"dq_n = da_n * r": "dq_n = da_n"}, "both"),
    ("relu's gradient everywhere 1", "rnn_relu", {"np.where(h_new == 0, 0, dh_new)": "dh_new"}, "both"),
    *[
        ("lengths ignored", cell, {"< ends)": "< T + 0 * ends)"}, "answers")
        for cell in ("rnn_tanh", "rnn_relu", "lstm", "lstm_peephole", "gru", "gru_reset_before")
    ],
    ("lengths ignored in the gradient", "gru", {"np.where(valid[t], d, 0)": "d"}, "both"),
    ("state not carried past the end in the gradient", "lstm", {"np.where(valid[t], d, held)": "d"}, "both"),
    ("output not zero past the end", "gru", {"np.where(valid[t], new[0], 0)": "state[0]"}, "both"),
    (
        "initial state ignored",
        "lstm",
        {"states[k], valid": "[0 * s for s in states[k]], valid"},
        "both",
    ),
    ("reverse direction runs forward", "gru", {"range(T)[::-1]": "range(T)"}, "answers"),
    ("one direction left out of dx", "gru", {"np.sum(dinputs, axis=0)": "dinputs[0]"}, "both"),
]


def wrong_reference(replacements: dict[str, str]) -> ModuleType:
    """The reference with a few words of its source replaced."""
    source = Path(reference.__file__).read_text()
    for right, wrong in replacements.items():
        assert right in source, f"the reference no longer says {right!r}"
        source = source.replace(right, wrong)
    module = ModuleType(reference.__name__)
    exec(compile(source, "wrong reference", "exec"), module.__dict__)
    return module


def all_gradients(cell: str, module: ModuleType) -> None:
    for sizes in PROBLEMS.values():
        check_gradients(problem(cell, **sizes), module)


def all_answers(cell: str, module: ModuleType) -> None:
    for name in KNOWN:
        if CELL_OF[name] == cell:
            check_known_answer(name, module)


@pytest.mark.parametrize(("what", "cell", "replacements", "seen_by"), WRONG, ids=[f"{w[0]}, {w[1]}" for w in WRONG])
def test_checks_catch_wrong_reference(what, cell, replacements, seen_by):
    module = wrong_reference(replacements)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        all_answers(cell, module)
    if seen_by == "both":
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            all_gradients(cell, module)


def test_checks_pass_the_right_reference_loaded_the_same_way():
    all_answers("gru", wrong_reference({}))
    all_gradients("gru", wrong_reference({}))
