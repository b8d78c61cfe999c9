"""`rnnbench check --against`: our backends and other implementations on the same random cases."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import stand_in

from rnnbench import backends, reference
from rnnbench.bench import against, tolerance
from rnnbench.bench.cases import Case
from rnnbench.bench.stored import Format
from rnnbench.bench.tolerance import tolerances
from rnnbench.bench.verify import verify
from rnnbench.cli import main

CELLS = ["lstm", "gru", "rnn_tanh"]


def test_random_cases_are_the_same_for_the_same_seed_and_reach_every_feature():
    drawn = list(against.cases(200, CELLS, ["float32", "float64"], ["forward", "train"], seed=3))
    assert drawn == list(against.cases(200, CELLS, ["float32", "float64"], ["forward", "train"], seed=3))
    assert drawn != list(against.cases(200, CELLS, ["float32", "float64"], ["forward", "train"], seed=4))
    assert len({case.seed for case in drawn}) == 200
    for name in ("cell", "dtype", "direction", "num_layers", "bidirectional", "lengths"):
        assert len({getattr(case, name) for case in drawn}) > 1, name
    assert {1, 20} <= {case.seq_len for case in drawn} and {1, 9} <= {case.batch_size for case in drawn}


def test_an_implementation_that_is_right_agrees(monkeypatch, capsys):
    name = stand_in.install(monkeypatch, stand_in.StandIn())
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "25"]) == 0
    told = capsys.readouterr().out
    assert f"{name}: a copy of the reference" in told and "25 random cases: 25 comparisons agree" in told


@pytest.mark.parametrize(
    ("broken", "cell"),
    [
        (lambda: stand_in.StandIn(params=stand_in.gates_swapped), "lstm"),
        (lambda: stand_in.StandIn(params=stand_in.recurrent_transposed), "gru"),
        (lambda: stand_in.StandIn(lengths=lambda lengths: None), "rnn_tanh"),
        (stand_in.without_forget_gate_in_dc, "lstm"),
        (lambda: stand_in.without_recurrent_part_in_dh("gru"), "gru"),
    ],
)
def test_an_implementation_that_is_wrong_is_found_out(broken, cell, monkeypatch, capsys):
    name = stand_in.install(monkeypatch, broken())
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "20", "--cells", cell]) == 1
    told = capsys.readouterr().out
    assert f"wrong: {cell} numpy" in told and f"against {name}: " in told and "do not" in told


@pytest.mark.parametrize(
    "arguments", [["--backends", stand_in.NAME], ["--backends", "numpy", "--against", stand_in.NAME]]
)
def test_what_cannot_be_compared_has_used_more_than_is_allowed(arguments, monkeypatch, capsys):
    stand_in.install(monkeypatch, stand_in.StandIn(forward=lambda output, final: (output[..., None], final)))
    assert main(["check", "--cells", "rnn_tanh", "--dtypes", "float32", "--direction", "forward", *arguments]) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "0.0e+00" in line]
    assert re.search(r" inf +0\.0e\+00 +inf%  output ", row)


@pytest.mark.parametrize(("times", "status"), [(1.5, "ok"), (3, "wrong")])
def test_gradients_may_differ_by_twice_what_one_of_them_may_be_off(times, status, monkeypatch):
    case = Case("lstm", "", "float32", "train", 6, 3, 4, 5)
    factor = 1 + times * tolerances(case).gradients
    peer = stand_in.StandIn(backward=lambda gradients: {n: factor * g for n, g in gradients.items()})
    ((_, _, found),) = against.against(case, ["numpy"], [stand_in.install(monkeypatch, peer)])
    assert found.status == status


@pytest.mark.parametrize(("times", "status"), [(0.5, "ok"), (1.5, "wrong")])
def test_each_of_the_two_may_be_as_far_off_as_it_rounds(times, status, monkeypatch):
    case = Case("lstm", "", "float32", "forward", 6, 3, 4, 5)
    name = stand_in.install(monkeypatch, stand_in.StandIn(forward=lambda output, final: (factor * output, final)))
    monkeypatch.setitem(tolerance.COARSE, name, tolerance.Coarse(2.0**-11, 2))
    factor = 1 + times * tolerances(case.on(name)).forward
    ((_, _, found),) = against.against(case, ["numpy"], [name])
    assert found.status == status
    # the finer one beside it is not allowed as much as twice the coarser one
    ((_, _, found),) = against.against(case, [name], ["numpy"])
    assert found.status == status


def test_a_peer_that_rounds_beyond_recognition_is_named(monkeypatch):
    name = stand_in.install(monkeypatch, stand_in.StandIn())
    monkeypatch.setitem(tolerance.COARSE, name, tolerance.Coarse(2.0**-4, 6))
    ((_, _, found),) = against.against(Case("lstm", "", "float32", "forward"), ["numpy"], [name])
    assert found.status == "skipped" and f"rounding in {name} may change outputs" in found.reason


def test_both_may_have_elements_beyond_a_kink_and_a_peer_gets_weights_as_ours_stores_them(monkeypatch):
    seen, asked = [], []
    right, results = against.compare, against._results
    monkeypatch.setattr(against, "compare", lambda *given: seen.append(given[-1]) or right(*given))
    monkeypatch.setattr(against, "STORED", {"numba-cpu": Format(8, -126)})
    monkeypatch.setattr(against, "_results", lambda case, stored: asked.append(stored) or results(case, stored))
    case = Case("rnn_relu", "", "float32", "train", 20, 9, 40, 48)
    name = stand_in.install(monkeypatch, stand_in.StandIn())
    list(against.against(case, ["numpy", "numba-cpu"], [name]))
    assert [allowed.flips for allowed in seen] == [2 * tolerances(case).flips] * 2 and seen[0].flips > 0
    assert asked == [None, None, Format(8, -126), None]  # theirs and ours, twice


LOGISTIC = """
from rnnbench import cell, tanh

@cell
def logistic(x, R, h, c):
    c = 3.9 * c * (1 - c)
    return c + 0.1 * tanh(x.a + R.a @ h), c
"""


@pytest.mark.parametrize(("seq_len", "status"), [(12, "ok"), (20, "ok"), (40, "skipped")])
def test_a_users_equation_may_amplify_what_rounding_begins(seq_len, status, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(LOGISTIC)
    case = Case(f"{tmp_path}/mine.py:logistic", "", "float32", "forward", seq_len, 4, 8, 16)
    right, make = against._results, against.make

    def near(case):  # the last digit of the states where it starts
        data = make(case)
        return dataclasses.replace(data, state=tuple(np.nextafter(s, np.float32(2)) for s in data.state))

    def results(case, stored):
        with monkeypatch.context() as patched:
            patched.setattr(against, "make", make if case.backend == "numpy" else near)
            return right(case.on("numpy"), stored)

    monkeypatch.setattr(against, "_results", results)
    ((_, _, found),) = against.against(case, ["numpy"], ["numba-cpu"])
    assert found.status == verify(case.on("numpy")).status == status


def test_a_growth_of_errors_that_cannot_be_measured_is_a_finding(monkeypatch):
    def crash(*_):
        raise RuntimeError("no growth")

    monkeypatch.setattr(against, "measured_tolerances", crash)
    name = stand_in.install(monkeypatch, stand_in.StandIn())
    ((_, _, found),) = against.against(Case("lstm", "", seq_len=2, batch_size=1), ["numpy"], [name])
    assert (found.status, found.reason) == ("failed", "RuntimeError: no growth")


def test_one_that_only_infers_is_held_against_inference(monkeypatch, capsys):
    infers = stand_in.StandIn()
    monkeypatch.setattr(
        infers, "why_unsupported", lambda spec, direction: "no way back" if direction == "train" else None
    )
    name = stand_in.install(monkeypatch, infers)
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "8", "--direction", "train"]) == 0
    assert "8 comparisons agree" in capsys.readouterr().out


def test_one_that_can_do_nothing_proves_nothing_and_one_that_crashes_is_reported(monkeypatch, capsys):
    name = stand_in.install(monkeypatch, stand_in.StandIn(why_unsupported="it is made of wood"))
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "3"]) == 1
    told = capsys.readouterr()
    assert f"skipped on {name}: it is made of wood" in told.out and "nothing was compared" in told.err

    def crash(*_: object) -> None:
        raise RuntimeError("kernel exploded")

    stand_in.install(monkeypatch, stand_in.StandIn(params=crash))
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "3"]) == 1
    assert f"{name}: RuntimeError: kernel exploded" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_found(monkeypatch, capsys):
    name = stand_in.install(monkeypatch, stand_in.StandIn())
    before, seen = against.against, []

    def twice(case, ours, peers):
        seen.append(case)
        if len(seen) > 2:
            raise KeyboardInterrupt
        return before(case, ours, peers)

    monkeypatch.setattr(against, "against", twice)
    assert main(["check", "--against", name, "--backends", "numpy", "--count", "5"]) == 130
    told = capsys.readouterr()
    assert "2 random cases: 2 comparisons agree" in told.out and "interrupted after 2 of 5" in told.err


def test_a_backend_is_not_held_against_itself(capsys):
    quick = ["--count", "2", "--cells", "rnn_tanh"]
    assert main(["check", "--against", "numpy", "--backends", "numpy", *quick]) == 2
    assert "--against numpy would compare numpy with itself" in capsys.readouterr().err
    assert main(["check", "--against", "numpy,numba-cpu", *quick]) == 2
    assert "leaves nothing to compare with it" in capsys.readouterr().err
    assert main(["check", "--against", "numpy", *quick]) == 0  # of our own, the other one
    assert "2 random cases: 2 comparisons agree" in capsys.readouterr().out


def test_a_count_of_random_cases_needs_something_to_compare_with(capsys):
    assert main(["check", "--cells", "rnn_tanh", "--count", "3"]) == 2
    assert "--count is the number of random cases of --against" in capsys.readouterr().err


def test_a_constant_that_the_dtype_cannot_hold_is_skipped_and_no_disagreement(tmp_path):
    (tmp_path / "far.py").write_text(
        "from rnnbench import cell, tanh\n\n@cell\ndef far(x, R, h):\n    return tanh(x.h * 1e200 + R.h @ h)\n"
    )
    case = Case(
        f"{tmp_path}/far.py:far", "", "float32", "forward", seq_len=2, batch_size=1, input_size=1, hidden_size=2
    )
    ((_, _, found),) = against.against(case, ["numpy"], ["numpy"])
    assert found.status == "skipped" and "float32 holds as inf" in found.reason


@pytest.mark.parametrize("peer", [name for name in backends.PEERS if "cuda" not in name])
def test_peers_agree_with_numpy(peer, capsys):
    reason = backends.why_unavailable(peer)
    if reason:
        pytest.skip(reason)
    count = "60" if peer == "torch" else "8"  # the others compile or build a model for each case
    cells = ",".join(reference.CELLS)
    assert main(["check", "--against", peer, "--backends", "numpy", "--count", count, "--cells", cells]) == 0
    assert "do not" not in capsys.readouterr().out
