"""What is said of unknown names."""

from __future__ import annotations

import pytest

from rnnbench.spelling import did_you_mean, unknown


def test_the_nearest_name_is_named_and_nothing_where_none_is_near() -> None:
    assert did_you_mean("grru", ("gru", "lstm")) == "did you mean 'gru'? "
    assert did_you_mean("LSTM", ("gru", "lstm")) == "did you mean 'lstm'? "
    assert did_you_mean("banana", ("gru", "lstm")) == did_you_mean("BANANA", ("gru", "lstm")) == ""
    assert did_you_mean("gru", ()) == "" and did_you_mean("", ("gru", "lstm")) == ""


def test_a_name_that_another_begins_with_is_near_however_long_that_is() -> None:
    assert did_you_mean("gru", ("lstm", "gru_reset_before")) == "did you mean 'gru_reset_before'? "
    assert did_you_mean("gru_reset_before", ("lstm", "gru")) == "did you mean 'gru'? "
    assert did_you_mean("forget_bias", ("bias",)) == ""


@pytest.mark.parametrize("name", [None, 3, ["gru"]])
def test_what_is_no_text_is_near_to_nothing(name: object) -> None:
    assert did_you_mean(name, ("gru", "lstm")) == ""


def test_the_sentence_of_an_error() -> None:
    known = (name for name in ("gru", "lstm"))  # read twice
    assert unknown("cell", "lstn", known) == "unknown cell 'lstn'; did you mean 'lstm'? choose from gru, lstm"
    assert unknown("cell", None, ["gru"]) == "unknown cell None; choose from gru"
