"""What comes out: text, files and the page, whole and when a library or a permission is missing."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_tree
from report_tree import Case

from rnnbench import report
from rnnbench.cli.terminal import never_fail
from rnnbench.report import plots

SMALL: dict[str, Any] = {"cells": ["lstm", "gru"], "hidden_sizes": [32, 64], "seq_lens": [16, 64], "batch_sizes": [4]}
NASTY = 'my|<b>cell</b>"$x^2$'
NEVER_CLOSED = {"meta", "br", "hr", "img", "link", "input"}


def broken(case: Case) -> dict[str, Any] | None:
    """One wrong, one skipped and one unverified case."""
    outcome = report_tree.verified(case)
    if case["cell"] == "gru" and case["hidden_size"] == 32:
        return {
            "train": outcome | {"status": "wrong", "error": 0.25, "worst": "dweight_hh_l0", "reason": ""},
            "forward": outcome | {"status": "skipped", "error": None, "reason": "no such library"},
        }[case["direction"]]
    return None if case["seq_len"] == 16 else outcome


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that the tests only read."""
    root = tmp_path_factory.mktemp("good")
    report_tree.write(root, **SMALL)
    return root


@pytest.fixture(scope="module")
def good_page(good: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    return report.html(report.read(good), path).read_text(encoding="utf-8")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    skipped = {"cell": "gru", "hidden_size": 32, "direction": "forward"}
    report_tree.write(
        tmp_path / "bad",
        **SMALL,
        verified=broken,
        seconds=lambda case: math.nan if skipped.items() <= case.items() else report_tree.seconds(case),
    )
    (tmp_path / "bad" / "desk" / "deadbeef-x.json").write_text("{")
    return tmp_path / "bad"


def printed(results: Path, **options: Any) -> tuple[int, str]:
    stream = io.StringIO()
    status = report.main(results, stream=stream, **options)
    return status, stream.getvalue()


class Page(HTMLParser):
    """Checks that tags nest, and collects what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_terminal_shows_machine_verdict_and_every_view(good: Path) -> None:
    status, text = printed(good, width=100)
    assert status == 0
    assert "desk, commit c0ffee00 of 2026-09-21; cpu Example CPU 3.0 GHz; cores 4" in text
    assert "32 cases, all verified against the reference before timing." in text
    for title in (
        *(
            "Throughput over hidden size, forward",
            "Throughput over hidden size, train",
            "Speed-up over numpy",
            "Memory",
        ),
        *("Time over sequence length, forward", "Percent of peak, train", "Memory", "Start-up and break-even"),
    ):
        assert f"\n{title}\n" in text
    assert "case by case" not in text and "Problem" not in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("ram", ["25276510208", "24684092"])  # as asv 0.6.6 writes it, and as 0.6.5 did
def test_the_memory_of_a_machine_without_a_record_is_asvs_in_bytes_or_in_kib(tmp_path: Path, ram: str) -> None:
    path = report_tree.write(tmp_path, **SMALL, machine_record=False)
    data = json.loads(path.read_text())
    data["params"]["ram"] = ram
    path.write_text(json.dumps(data))
    _, text = printed(tmp_path, width=100)
    assert "memory 23.5 GiB" in " ".join(text.split())


def test_everything_that_is_not_a_verified_number_is_shown_by_name(bad: Path) -> None:
    status, text = printed(bad, width=100)
    assert status == 1
    flat = " ".join(text.split())
    where = "track_tape_bytes, track_training_workspace_bytes, time_train"
    assert f"WRONG numba-cpu gru train float32 T=64 B=4 H=32 ({where}): dweight_hh_l0" in flat
    assert "skipped numpy gru forward float32 T=64 B=4 H=32" in flat and "no such library" in flat
    assert "UNVERIFIED numpy gru, lstm train float32 T=16 B=4 H=128 (time_train): no verification record" in flat
    assert "2 WRONG, 8 UNVERIFIED, 2 skipped, 20 verified" in flat
    assert "Problem: " in flat and "deadbeef-x.json" in flat


def test_a_failed_start_up_counts_although_it_is_no_case(tmp_path: Path) -> None:
    path = report_tree.write(tmp_path, **SMALL)
    data = json.loads(path.read_text())
    data["results"]["startup.Startup.track_first_call_seconds"][0] = [None, 0.1, 0.1, 0.1]
    path.write_text(json.dumps(data))
    status, text = printed(tmp_path, width=100)
    assert status == 1 and "1 other measurement FAILED" in text


def test_markdown_has_a_table_for_every_view_and_survives_strange_names(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL | {"cells": ["lstm", NASTY]})
    status, text = printed(tmp_path, format="markdown")
    assert status == 0 and text.count("\n## ") == len(report.tables(report.read(tmp_path)))
    assert "case by case" in text and "**" in text
    assert 'my\\|&lt;b>cell&lt;/b>"$x^2$' in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_csv_and_parquet_hold_the_whole_frame(good: Path, tmp_path: Path) -> None:
    frame = report.load(good)
    _, text = printed(good, format="csv")
    back = pd.read_csv(io.StringIO(text))
    assert list(back.columns) == report.COLUMNS
    assert back["value"].to_numpy() == pytest.approx(frame["value"].to_numpy(), rel=1e-15, nan_ok=True)
    path = tmp_path / "new" / "folder" / "numbers.parquet"
    status, text = printed(good, format="parquet", output=path)
    assert status == 0 and str(path) in text
    pd.testing.assert_frame_equal(pd.read_parquet(path).astype(frame.dtypes.to_dict()), frame)


def test_an_output_goes_to_a_file_and_the_page_comes_beside_it(good: Path, tmp_path: Path) -> None:
    status, text = printed(good, format="markdown", output=tmp_path / "new" / "report.md", html=True)
    assert status == 0
    assert (tmp_path / "new" / "report.md").read_text().startswith("# rnnbench")
    assert str((good / "report.html").resolve()) in text and (good / "report.html").is_file()
    # a page in the results directory is no result
    assert report.read(good).problems == []


def test_the_page_is_one_file_that_asks_nothing_of_a_network(good_page: str) -> None:
    page = Page(good_page)
    assert not page.all("script") and not page.all("link") and not page.all("img")
    assert not re.search(r"url\(\s*['\"]?(?!#)", good_page) and "@import" not in good_page
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            where = attributes.get(name) or "#"
            assert where.startswith("#") or (where.endswith((".json", ".jsonl")) and ":" not in where)  # the raw files
    assert "32 cases, all verified against the reference before timing." in page.text
    assert "Example CPU 3.0 GHz" in page.text and "recurrent cells are on this machine, by" in page.text


def test_the_page_can_be_used_without_seeing_it(good_page: str) -> None:
    page = Page(good_page)
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1
    pictures = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    # throughput and time for each cell and direction, one map a direction, one roofline
    assert len(pictures) == 2 * 2 + 2 * 2 + 2 + 1
    assert all(svg["role"] == "img" and len(svg["aria-label"] or "") > 40 for svg in pictures)
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    links = {
        (attributes["href"] or "").removeprefix("#")
        for attributes in page.all("a")
        if "#" in (attributes["href"] or "")
    }
    assert links <= set(identities)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_the_plots_have_units_on_their_axes_and_colours_of_the_page(good_page: str) -> None:
    page = Page(good_page)
    for axis in ("hidden size H (units)", "throughput (steps/s)", "sequence length T (steps)", "time a call"):
        assert axis in page.text
    assert "(seconds)" not in page.text  # the ticks say it, and may say ms
    assert not [colour for colour in plots.TOKENS.values() if colour in good_page]
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", good_page))
    light, dark = good_page.split("prefers-color-scheme: dark")
    defined = [set(re.findall(r"--([a-z0-9-]+):", part)) for part in (light, dark)]
    assert used <= defined[0] and defined[0] == defined[1]
    assert {"series-0", "series-1", "ink", "grid"} <= used


def test_a_table_that_goes_on_behind_an_edge_shows_it_and_keeps_its_first_column(good_page: str) -> None:
    style = good_page[good_page.index("<style>") : good_page.index("</style>")]
    (scroll,) = re.findall(r"^\.scroll \{(.*?)\}$", style, flags=re.MULTILINE | re.DOTALL)
    # covers that move with the table, before shades that do not
    assert "overflow-x: auto" in scroll and "background-attachment: local, local, scroll, scroll" in scroll
    assert re.findall(r"linear-gradient\(to (\w+), var\(--(\w+)\)", scroll) == [
        ("right", "surface"), ("left", "surface"), ("right", "shade"), ("left", "shade")
    ]  # fmt: skip
    narrow = style[style.index("@media (max-width: 30rem)") :]
    assert re.search(r"th\.key:first-child \{ position: sticky; left: 0; background: var\(--surface\)", narrow)
    assert all(
        attributes.get("tabindex") == "0"
        for attributes in Page(good_page).all("div")
        if attributes.get("class") == "scroll"
    )


def test_a_legend_shows_what_the_plots_of_its_section_have_and_nothing_else(tmp_path: Path) -> None:
    def seconds(case: Case) -> float:  # lengths were swept with one row, and widths with sixteen
        swept = case["batch_size"] == (1 if case["hidden_size"] == 128 else 16)
        return report_tree.seconds(case) if swept else math.nan

    report_tree.write(tmp_path, **SMALL | {"cells": ["lstm"], "batch_sizes": [1, 16]}, seconds=seconds)
    text = report.html(report.read(tmp_path), tmp_path / "page.html").read_text(encoding="utf-8")
    sections = {part.split('"')[0]: part for part in text.split('<h3 id="')[1:]}
    sizes = {name: re.findall(r"batch size (\d+)</li>", part) for name, part in sections.items()}
    assert sizes["throughput-0"] == ["16"] and sizes["time-0"] == ["1"] and sizes["peak-0"] == []
    assert "numba-cpu</li>" in sections["peak-0"]


def test_a_page_with_trouble_begins_with_it(bad: Path, tmp_path: Path) -> None:
    page = Page(report.html(report.read(bad), tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "2 WRONG" in page.text and "all verified" not in page.text
    headings = [attributes["id"] for attributes in page.all("h3")]
    assert headings[0] == "left-out-0"
    assert "dweight_hh_l0 is off by 0.25" in page.text and "deadbeef-x.json" in page.text


def test_strange_names_are_text_on_the_page_and_in_plots(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL | {"cells": [NASTY]}, machine="<i>desk")
    text = report.html(report.read(tmp_path), tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "<b>cell" not in text and "<i>" not in text
    assert NASTY in page.text and "<i>desk" in page.text


def test_several_runs_are_sections_of_one_page_and_titles_of_one_text(tmp_path: Path) -> None:
    for machine in ("one", "two"):
        report_tree.write(tmp_path, **SMALL | {"cells": ["lstm"]}, machine=machine)
    page = Page(report.html(report.read(tmp_path), tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [attributes["id"] for attributes in page.all("h2")] == ["all", "run-0", "run-1"]
    assert "recurrent cells are on these machines, by" in page.text
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    _, text = printed(tmp_path, width=100)
    assert "Memory (one c0ffee00)" in text and "Memory (two c0ffee00)" in text


def test_one_backend_and_one_size_make_a_report_without_comparisons(tmp_path: Path) -> None:
    lonely = SMALL | {"cells": ["lstm"], "backends": ["numba-cpu"], "hidden_sizes": [128], "seq_lens": [64]}
    report_tree.write(tmp_path, **lonely)
    status, text = printed(tmp_path, width=100, html=True)
    assert status == 0 and "Throughput over hidden size, forward" in text and "Speed-up" not in text
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Speed-up" not in page.text


def test_nothing_measured_at_all_still_makes_a_report_that_says_so(tmp_path: Path) -> None:
    failed = {"status": "failed", "error": None, "tolerance": None, "reason": "RuntimeError: boom"}
    report_tree.write(tmp_path, **SMALL, seconds=lambda case: None, verified=lambda case: failed)
    status, text = printed(tmp_path, width=100, html=True)
    assert status == 1 and "32 FAILED" in text and "RuntimeError: boom" in text
    assert "32 FAILED" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    "library, options",
    [
        ("tabulate", {}),
        ("tabulate", {"format": "markdown"}),
        ("matplotlib", {"format": "html"}),
        ("jinja2", {"format": "html"}),
    ],
)
def test_a_missing_library_is_one_sentence(
    good: Path, monkeypatch: pytest.MonkeyPatch, library: str, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(report.MissingLibrary, match=rf'needs {library}, .*: pip install "rnnbench\[report\]"$'):
        report.main(good, stream=io.StringIO(), **options)


def test_without_pyarrow_only_parquet_is_missing(good: Path) -> None:
    code = f"""
import sys
class Without:  # before pandas looks for it
    def find_spec(self, name, *_):
        if name == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'", name=name)
sys.meta_path.insert(0, Without())
from rnnbench import report
report.main({str(good)!r}, width=100)
try:
    report.main({str(good)!r}, format="parquet")
except report.ReportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "32 cases, all verified" in done.stdout
    assert done.stdout.endswith('Parquet needs pyarrow, which is missing: pip install "rnnbench[report]"\n')


def test_what_cannot_be_written_or_is_unknown_is_one_sentence(good: Path) -> None:
    (good / "occupied").write_text("a file")
    for options in ({"output": good / "occupied" / "x.md"}, {"html": good / "occupied" / "x.html"}):
        with pytest.raises(report.ReportError, match="cannot be written.*occupied"):
            report.main(good, format="markdown", stream=io.StringIO(), **options)
    for options in ({"output": "."}, {"html": good}):
        with pytest.raises(report.ReportError, match=r"cannot be written: .*Is a directory"):
            report.main(good, format="markdown", stream=io.StringIO(), **options)
    with pytest.raises(report.ReportError, match="no report format 'pdf'; known are table, markdown, csv"):
        report.main(good, format="pdf")
    with pytest.raises(report.ReportError, match="baseline 'torch'"):
        report.main(good, baseline="torch", format="html")


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C"}])
@pytest.mark.parametrize("shape", ["table", "markdown"])
def test_a_report_is_shown_where_its_signs_cannot_be_encoded(good: Path, shape: str, encoding: dict[str, str]) -> None:
    variables = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | encoding
    command = [sys.executable, "-m", "rnnbench", "report", "--results", str(good), "--format", shape]
    done = subprocess.run(command, env=variables, capture_output=True, check=True)
    text = done.stdout.decode("latin-1")
    assert re.search(r" \d\.\d+[x×] ", text) and re.search(r" -\W", text) and done.stderr == b""
    assert text.isascii() == ("latin-1" not in encoding.values())


def test_what_cannot_be_encoded_has_something_in_its_place() -> None:
    for encoding, errors, written in (
        ("ascii", "strict", b"3x 5 us - \\u2265 \\U0001f534 \xff"),
        ("latin-1", "surrogateescape", b"3\xd7 5 \xb5s - \\u2265 \\U0001f534 \xff"),
        ("ascii", "replace", b"3? 5 ?s ? ? ? ?"),  # as was asked for
    ):
        bytes_ = io.BytesIO()
        stream = io.TextIOWrapper(bytes_, encoding, errors)
        never_fail(stream)
        stream.write("3× 5 µs – ≥ 🔴 \udcff")
        stream.flush()
        assert bytes_.getvalue() == written
    never_fail(None)  # standard output that the caller closed


def test_problems_go_beside_a_csv_and_not_into_it(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(bad, format="csv")
    assert "Problem" not in text and "deadbeef-x.json" in capsys.readouterr().err
