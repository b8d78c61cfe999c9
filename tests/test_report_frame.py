"""What users do with the frame of `report.load`: masks in either order, Parquet and CSV, the lines of the README."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
import report_tree

from rnnbench import report

ROOT = Path(__file__).parent.parent
NUMBERS = {"seq_len", "batch_size", "input_size", "hidden_size", "threads", "value", "lower", "upper", "n", "error"}
TEXTS = [name for name in report.COLUMNS if name not in NUMBERS | {"tolerance", "flops", "date"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    report_tree.write(root, cells=["lstm", "gru"], hidden_sizes=[32, 64], seq_lens=[16], batch_sizes=[4])
    return root


def check_masks(frame: pd.DataFrame) -> None:
    """A mask of sizes and one of texts give the same rows in either order, those that plain Python finds."""
    assert frame["cell"].isna().any() and frame["hidden_size"].isna().any()  # the rows over which a mask can stumble
    sizes = [value == 32 for value in frame["hidden_size"].astype("float64")]
    for name in TEXTS:
        text = frame[name].dropna().iloc[0]
        texts = [not pd.isna(value) and value == text for value in frame[name]]
        size, chosen = frame["hidden_size"] == 32, frame[name] == text
        both = [number for number, pair in enumerate(zip(sizes, texts, strict=True)) if all(pair)]
        either = [number for number, pair in enumerate(zip(sizes, texts, strict=True)) if any(pair)]
        assert list(frame[size & chosen].index) == list(frame[chosen & size].index) == both, name
        assert list(frame[size | chosen].index) == list(frame[chosen | size].index) == either, name


def test_masks_of_sizes_and_texts_combine_in_either_order(folder: Path) -> None:
    check_masks(report.load(folder))


def test_all_texts_have_one_dtype(folder: Path) -> None:
    assert len({str(report.load(folder)[name].dtype) for name in TEXTS}) == 1


def test_masks_combine_in_what_parquet_and_csv_give_back(folder: Path, tmp_path: Path) -> None:
    results = report.read(folder)
    back = pd.read_parquet(report.parquet(results, tmp_path / "numbers.parquet"))
    pd.testing.assert_frame_equal(back, results.frame)  # without a conversion of any dtype
    check_masks(back)
    check_masks(pd.read_csv(io.StringIO(report.csv(results))))


def test_the_lines_of_the_readme_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    (program,) = [each for each in programs if "report.load(" in each]
    names: dict[str, pd.DataFrame] = {}
    exec(program, names)
    assert len(names["lstm"]) and set(names["lstm"]["cell"]) == {"lstm"}
