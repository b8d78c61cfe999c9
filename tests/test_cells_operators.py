"""What Python can write and an equation cannot mean is refused in our words, as in test_cells_errors.py."""

from __future__ import annotations

import pytest

from rnnbench import CellError, cell


@pytest.mark.parametrize(
    "line",
    [
        "h // 2",
        "2 // h",
        "h % 2",
        "2 % h",
        "divmod(h, 2)",
        "round(h)",
        "~h",
        "h ^ 1",
        "1 ^ h",
        "h << 1",
        "1 << h",
        "h >> 1",
        "1 >> h",
    ],
)
@pytest.mark.parametrize(
    ("value", "sentence"), [("h", "~ ^ << >> are not supported"), ("R.a", "R.a without @ is not a value")]
)
def test_pythons_other_operators_are_refused_in_our_words(line, value, sentence):
    with pytest.raises(CellError, match="An equation may use") as error:
        traced(f"    return x.i + ({line.replace('h', value)})\n")
    assert sentence in str(error.value) and "Node" not in str(error.value) and "_Gate" not in str(error.value)


@pytest.mark.parametrize("line", ["h[:] = x.i", "h[0] = 1", "del h[0]"])
def test_a_value_is_not_changed_in_place(line):
    with pytest.raises(CellError, match="a value cannot be changed in place; give the new one a name"):
        traced(f"    {line}\n    return x.i\n")
    with pytest.raises(CellError, match="R.a without @ is not a value"):
        traced(f"    {line.replace('h', 'R.a')}\n    return x.i\n")


def traced(body):
    scope = {}
    exec(f"def mine(x, R, h):\n{body}", scope)
    return cell(scope["mine"])
