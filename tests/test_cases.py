"""Cases and the grids of the suites."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rnnbench import backends, cells
from rnnbench.bench.cases import PARAM_NAMES, SUITES, Case, Grid, grid
from rnnbench.params import DTYPES


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seq_len": 0}, "seq_len must be a whole number of at least 1; got 0"),
        ({"batch_size": -1}, "batch_size"),
        ({"hidden_size": 2.0}, "hidden_size"),
        ({"num_layers": True}, "num_layers"),
        ({"dtype": "float16"}, "dtype must be float32 or float64; got 'float16'"),
        ({"direction": "backward"}, "forward or train"),
        ({"lengths": "long"}, "full or ragged"),
    ],
)
def test_a_case_that_cannot_be_says_why(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Case("lstm", "numpy", **wrong)


def test_flops_are_those_of_the_matrix_products_of_all_layers_and_directions() -> None:
    one = Case("lstm", "numpy", seq_len=5, batch_size=3, input_size=7, hidden_size=11)
    assert one.flops == 2 * 5 * 3 * 4 * 11 * (7 + 11)
    assert dataclasses.replace(one, direction="train").flops == 3 * one.flops
    both = dataclasses.replace(one, bidirectional=True)
    assert both.flops == 2 * one.flops
    deep = dataclasses.replace(both, num_layers=2)
    assert deep.flops == both.flops + 2 * 2 * 5 * 3 * 4 * 11 * (22 + 11)


def test_the_memory_estimate_covers_the_arrays_of_a_training_step() -> None:
    case = Case("lstm", "numpy", "float64", "train", 100, 10, 50, 60)
    tape = 100 * 10 * 60 * 8 * (4 + 2)  # gates and states
    parameters = 8 * 4 * 60 * (50 + 60 + 2)
    assert case.memory_bytes > tape + 2 * parameters
    assert case.memory_bytes < 20 * (tape + parameters)
    assert Case("lstm", "numpy", seq_len=10**9).memory_bytes > 10**12


def test_a_case_is_told_in_one_line() -> None:
    case = Case("gru", "numpy", num_layers=2, bidirectional=True, lengths="ragged")
    assert str(case) == "gru numpy float32 forward T=32 B=16 I=128 H=128 layers=2 both ways ragged"
    assert case.on("numba-cpu").backend == "numba-cpu"


@pytest.mark.parametrize("suite", SUITES)
def test_grids_name_what_exists_and_every_suite_covers_every_class(suite: str) -> None:
    left_out = {"WordsToPerplexity", "Examples"} if suite == "quick" else set()
    assert set(SUITES[suite]) == set(SUITES["smoke"]) - left_out
    programs = {
        "Words": ("torch",),
        "WordsToPerplexity": (),
        "Digits": (),
        "Examples": (),
    }  # and what peers have of them
    for name, chosen in SUITES[suite].items():
        assert set(chosen.cells) <= set(cells.BUILT_IN) and set(chosen.dtypes) <= set(DTYPES)
        peers = programs.get(name, tuple(name for name in backends.PEERS if "cuda" not in name))
        assert chosen.backends == backends.OWN + (peers if suite in ("standard", "full") else ())
        for axis in chosen.axes():
            assert axis and len(axis) == len(set(axis))
    assert len(Grid().axes()) == len(PARAM_NAMES)


def test_the_newcomers_suite_times_lstm_gru_and_rnn() -> None:
    for name in ("ForwardOverHiddenSize", "TrainOverHiddenSize"):
        assert {"lstm", "gru", "rnn_tanh"} <= set(SUITES["quick"][name].cells)


def test_the_environment_picks_the_suite_and_overrides_cells_and_backends() -> None:
    assert grid("Memory", {}) == SUITES["quick"]["Memory"]
    assert grid("Memory", {"RNNBENCH_SUITE": "smoke"}) == SUITES["smoke"]["Memory"]
    named = grid("Memory", {"RNNBENCH_CELLS": "gru,a/b.py:mine", "RNNBENCH_BACKENDS": "numpy"})
    assert (named.cells, named.backends) == (("gru", "a/b.py:mine"), ("numpy",))
    named = grid("Memory", {"RNNBENCH_CELLS": "lstm[clip=0.5,peepholes],gru[clip=1]"})
    assert named.cells == ("lstm[clip=0.5,peepholes]", "gru[clip=1]")
    with pytest.raises(ValueError, match="unknown suite 'quik'; did you mean 'quick'"):
        grid("Memory", {"RNNBENCH_SUITE": "quik"})
