"""`rnnbench check --against`: our backends and other implementations on the same random cases."""

from __future__ import annotations

import re

import pytest
import stand_in

from rnnbench import backends, reference
from rnnbench.bench import against
from rnnbench.bench.cases import Case
from rnnbench.bench.tolerance import tolerances
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
