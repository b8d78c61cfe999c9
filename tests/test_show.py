"""A cell as text: every part is there, the code in it is the code that runs, sizes replace letters."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import cell_zoo
import pytest

from rnnbench.cells import BUILT_IN, program, show
from rnnbench.cells.emit import emit, plain, typed
from rnnbench.cells.show import DIALECTS

ALL = BUILT_IN | cell_zoo.CELLS


def code_of(text: str) -> str:
    """Everything below the headings Forward and Backward but the headings."""
    lines = text[text.index("## Forward") :].splitlines()
    return "\n".join(line for line in lines if not line.startswith("## "))


@pytest.mark.parametrize("backend", DIALECTS)
@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_it_shows_the_equation_the_structure_and_the_code_that_runs(cell, backend):
    text = show(cell, backend)
    assert text.startswith(f"# {cell.name}\n\n{cell.equations.rstrip()}\n\n## Structure\n")
    assert f"digest            {cell.digest}\n" in text
    constant = typed if backend == "numba-cuda" else plain
    inference, training = program(cell, False), program(cell, True)
    for part, stages in ((inference, inference.forward), (training, training.forward), (training, training.backward)):
        for stage in stages:
            assert emit(part, stage.code, constant) in text
    names = [node.name for node in ast.parse(code_of(text)).body]
    assert len(names) == len(inference.forward) + len(training.forward) + len(training.backward)


def test_structure_in_letters_and_in_numbers():
    text = show(BUILT_IN["lstm_peephole"])
    assert "gates of x        i, f, g, o: weight_ih_l0 (4*H, I), bias_ih_l0 (4*H,)\n" in text
    assert "gates of R        i, f, g, o: weight_hh_l0 (4*H, H), bias_hh_l0 (4*H,)\n" in text
    assert "vectors           p_i_l0, p_f_l0, p_o_l0: (H,) each\n" in text
    assert "numbers           forget_bias = 0\n" in text
    assert "states            h, c: (H,) a row each, the output h first\n" in text
    assert "kept for BPTT     5 values a unit and step besides the states (i, f, g, o, saved_4)\n" in text
    text = show(BUILT_IN["lstm_peephole"], hidden_size=6, input_size=5)
    assert "weight_ih_l0 (24, 5), bias_ih_l0 (24,)\n" in text and "weight_hh_l0 (24, 6), bias_hh_l0 (24,)\n" in text
    assert "p_o_l0: (6,) each\n" in text and "h, c: (6,)" in text
    text = show(BUILT_IN["rnn_relu"])
    assert "weight_ih_l0 (H, I), bias_ih_l0 (H,)\n" in text and "kept for BPTT     0 values" in text


def test_parts_that_a_cell_has_not_are_left_out():
    text = show(cell_zoo.mingru)
    assert "gates of R" not in text and "products of" not in text and "numbers" not in text and "vectors" not in text


def test_products_are_told_where_they_happen():
    text = show(BUILT_IN["gru_reset_before"])
    assert (
        text.count("# first the products of R.r, z with h\n")
        == text.count("# first the products of R.n with operand_0\n")
        == 2
    )
    before, after = text.split("# then the transposes: back_operand_0 = the sum over n of R^T da\n")
    assert "gru_reset_before_backward_2" in before.splitlines()[-5]
    assert "# then the transposes: back_h = the sum over r, z of R^T da\n" in after


def test_an_unknown_backend_is_refused():
    with pytest.raises(
        ValueError, match="no emitted code for the backend 'torch'; there is for numpy, numba-cpu, numba-cuda"
    ):
        show(BUILT_IN["gru"], "torch")


@pytest.mark.skipif(os.name != "posix", reason="a shell's way to close standard output")
def test_a_closed_standard_output_is_no_fault() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m rnnbench show lstm >&-', sys.executable], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
