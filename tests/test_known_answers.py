"""Other projects' numbers come out of our backends, and a network laid out wrongly makes cases fail.

What is compared and what it cannot see is in docs/known-answers.md, whose tables are held to what happens here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_answers import CASES, ENTRIES
from known_answers.case import Case
from known_answers.onnx_nodes import NODE_TESTS, node_tests

from rnnbench import RNN, backends
from rnnbench.cells import variants
from rnnbench.interop.layouts import family

DOCUMENT = Path(__file__).parent.parent / "docs" / "known-answers.md"
# Cases that are not supported, with the reason.
UNSUPPORTED: dict[str, str] = {}
# Cases that need a kernel which one case or two have use for: on numba-cpu they are marked `full`.
RARE = {
    "onnxruntime-tests/LSTM_ONNXRuntime_TestLSTMForwardClip",
    "onnxruntime-tests/LSTM_ONNXRuntime_TestLSTMSequenceLengthAllZeros",
    "onnxruntime-tests/LSTM_ONNXRuntime_TestLSTMSequenceLengthPartialZeros",
    "onnxruntime-tests/GRU_ONNXRuntime_TestGRUOpForwardActivation",
    "onnxruntime-tests/GRU_ONNXRuntime_TestGRUOpSingleBatchMultipleHiddenThreads",
    *(f"onnxruntime-runs/{name}" for name in ("lstm_clip", "rnn_clip", "rnn_leakyrelu_bidir")),
    *(f"onnx-specification/{name}" for name in ("lstm_clip", "rnn_clip", "rnn_leakyrelu_bidir")),
}


def load(name: str) -> Case:
    """The case, or a skip that names the library from which it would come."""
    if name.startswith("onnx-package/") and importlib.util.find_spec("onnx") is None:
        pytest.skip(f"{name} comes with the package onnx, which is not installed")
    return CASES[name]()


def everything() -> list[Any]:
    """Every supported case on each of our backends."""
    found = []
    for name, backend in itertools.product(CASES, backends.OWN):
        if name not in UNSUPPORTED:
            marks = pytest.mark.full if name in RARE and backend == "numba-cpu" else ()
            found.append(pytest.param(name, backend, marks=marks, id=f"{name}-{backend}"))
    return found


@pytest.mark.parametrize(("name", "backend"), everything())
def test_known_answer(name: str, backend: str) -> None:
    case = load(name)
    case.check(case.answer(backend))


def test_node_tests_are_those_of_the_package() -> None:
    pytest.importorskip("onnx")
    assert sorted(node_tests()) == sorted(NODE_TESTS)


@cache
def made() -> dict[str, Case]:
    """All cases that can be had here."""
    here = importlib.util.find_spec("onnx") is not None
    return {name: make() for name, make in CASES.items() if here or not name.startswith("onnx-package/")}


def test_a_wrong_number_is_seen() -> None:
    """Each array of each case is compared: with one number off by two tolerances, the case fails and names it."""
    for name, case in made().items():
        got = case.answer("numpy")
        for key, expected in case.expected.items():
            wrong = np.array(expected)
            wrong.flat[-1] += 2.1 * case.tolerance(key) + 4 * np.spacing(np.abs(wrong.flat[-1]))
            with pytest.raises(AssertionError, match=key):
                dataclasses.replace(case, expected={key: wrong}).check(got)
                pytest.fail(f"{name} does not compare its {key}", pytrace=False)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_no_wrong_constant_hides_behind_the_distance_that_its_case_records(entry: dict[str, Any]) -> None:
    """The independent evaluation, whose distance is our tolerance, agrees within the tolerance of the source's own test."""
    given = entry["tolerance_in_test"]
    own = given if isinstance(given, dict) else {"atol": 0.0}  # a note that the numbers are whole and exact
    largest = max(np.abs(np.array(value)).max() for key, value in entry["expected"].items() if key != "what")
    assert entry["verify"]["ref64_maxabs"] <= own.get("atol", 0.0) + own.get("rtol", 0.0) * largest


# ---- faults of a layout: each spoils a network, and notes in `spoilt` that there was something to spoil


def swapped_gates(rnn: RNN, spoilt: list[str]) -> RNN:
    """The first two gates change places: i and f, or r and z."""
    gates = {"ih": rnn.spec.cell.input_gates, "hh": rnn.spec.cell.recurrent_gates}
    params = dict(rnn.params)
    for name, array in params.items():
        side = gates.get(name.partition("_l")[0][-2:], ())
        if len(side) > 1:
            blocks = np.split(array, len(side))
            params[name] = np.concatenate([blocks[1], blocks[0], *blocks[2:]])
            spoilt.append(name)
    rnn.load(params)
    return rnn


def transposed_R(rnn: RNN, spoilt: list[str]) -> RNN:
    """Each gate's block of the recurrent matrix is transposed, where it is square and not a single number."""
    params = dict(rnn.params)
    for name, array in params.items():
        if name.startswith("weight_hh") and array.shape[1] == rnn.spec.hidden_size > 1:
            params[name] = np.concatenate([block.T for block in np.split(array, len(rnn.spec.cell.recurrent_gates))])
            spoilt.append(name)
    rnn.load(params)
    return rnn


def reset_flipped(rnn: RNN, spoilt: list[str]) -> RNN:
    """The reset gate of a GRU comes before the recurrent product instead of after, or the reverse."""
    if family(rnn.spec.cell) != "gru":
        return rnn
    name, options = variants.options_of(rnn.spec.cell)
    cell = variants.make(name, options | {"reset": "after" if options["reset"] == "before" else "before"})
    keys = ("num_layers", "bidirectional", "bias", "reverse")
    chosen = {key: getattr(rnn.spec, key) for key in keys} | {"batch_first": rnn.batch_first, "backend": rnn.backend}
    wrong = RNN(cell, rnn.spec.input_size, rnn.spec.hidden_size, dtype=rnn.spec.dtype, **chosen)
    wrong.load(rnn.params)
    spoilt.append("reset")
    return wrong


def peepholes_zeroed(rnn: RNN, spoilt: list[str]) -> RNN:
    """The vectors through which gates see the cell are zeros."""
    spoilt += [name for name in rnn.params if name.startswith("p_")]
    rnn.load({name: np.zeros_like(a) if name in spoilt else a for name, a in rnn.params.items()})
    return rnn


class LengthsIgnored:
    """A network that takes every sequence to be as long as the longest may be."""

    def __init__(self, rnn: RNN, spoilt: list[str]) -> None:
        self.rnn, self.spoilt, self.backward = rnn, spoilt, rnn.backward

    def __call__(self, x: np.ndarray, state: Any = None, lengths: Any = None) -> Any:
        return self._note(x, lengths).rnn(x, state)

    def forward(self, x: np.ndarray, state: Any = None, lengths: Any = None) -> Any:
        return self._note(x, lengths).rnn.forward(x, state)

    def _note(self, x: np.ndarray, lengths: Any) -> LengthsIgnored:
        if lengths is not None and np.min(lengths) < x.shape[1 if self.rnn.batch_first else 0]:
            self.spoilt.append("lengths")
        return self


FAULTS: dict[str, Callable[..., Any]] = {
    "gates swapped": swapped_gates,
    "R transposed": transposed_R,
    "lengths ignored": LengthsIgnored,
    "reset flipped": reset_flipped,
    "peepholes zeroed": peepholes_zeroed,
}


def fails(case: Case, got: dict[str, np.ndarray]) -> bool:
    try:
        case.check(got)
    except AssertionError:
        return True
    return False


@cache
def caught() -> dict[str, dict[str, list[bool]]]:
    """Source -> fault -> for each case that has what it spoils, whether the case failed on NumPy."""
    found: dict[str, dict[str, list[bool]]] = {}
    for name, case in made().items():
        row = found.setdefault(name.partition("/")[0], {fault: [] for fault in FAULTS})
        for fault, spoil in FAULTS.items():
            spoilt: list[str] = []
            networks = [spoil(net.build("numpy"), spoilt) for net in case.nets]
            failed = (bool(spoilt) or spoil is LengthsIgnored) and fails(case, case.run(*networks))
            assert spoilt or not failed, f"{name} failed though it has nothing for {fault!r}"
            row[fault] += [failed] if spoilt else []
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_layout_is_caught(fault: str) -> None:
    assert any(failed for row in caught().values() for failed in row[fault])


# ---- the document


def table_of_sources() -> str:
    counts, rare, left_out = (Counter(name.partition("/")[0] for name in some) for some in (CASES, RARE, UNSUPPORTED))
    lines = [f"| {source} | {number} | {rare[source]} | {left_out[source]} |" for source, number in counts.items()]
    return "\n".join([*lines, f"| all | {len(CASES)} | {len(RARE)} | {len(UNSUPPORTED)} |"])


def table_of_faults() -> str:
    lines = []
    for source, row in caught().items():
        cells = [f"{sum(failed)} of {len(failed)}" if failed else "" for failed in row.values()]
        lines.append(f"| {source} | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


def test_the_document_has_the_counts_and_what_is_not_supported() -> None:
    text = DOCUMENT.read_text()
    assert set(CASES) >= RARE | set(UNSUPPORTED)
    assert table_of_sources() in text, table_of_sources()
    for name, reason in UNSUPPORTED.items():
        assert f"| {name} | {reason} |" in text
    assert bool(UNSUPPORTED) != ("None: every case runs" in text)


def test_the_document_says_which_faults_each_source_sees() -> None:
    pytest.importorskip("onnx")
    assert table_of_faults() in DOCUMENT.read_text(), table_of_faults()
