"""What Tab offers in a shell: names, files and folders, in every command and in the commands of a command."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnnbench import backends, cells
from rnnbench.bench.cases import SUITES
from rnnbench.cli import main
from rnnbench.cli.parser import EXAMPLES, SHELLS, build

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.fixture
def offers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What bash offers for the last of some words, in a folder that holds a file and a folder."""
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (tmp_path / "text.txt").touch()
    (tmp_path / "mnist").mkdir()

    def offered(*words: str) -> set[str]:
        given = " ".join(f"'{word}'" for word in ("rnnbench", *words))
        asked = f"COMP_WORDS=({given}); COMP_CWORD={len(words)}; _shtab_rnnbench; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        # bash knows compopt only while it completes
        program = f"{script}\ncompopt() {{ :; }}\n{asked}"
        done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return {line.rstrip("/") for line in done.stdout.split()}

    return offered


@needs_bash
@pytest.mark.parametrize(
    "words",
    [
        *(("train", "words", flag) for flag in ("--text", "--save", "--resume", "--metrics", "--plot")),
        *(("train", "digits", flag) for flag in ("--save", "--resume", "--metrics", "--plot")),
        *(("gate", flag) for flag in ("--markdown", "--json")),
        *(("report", flag) for flag in ("--output", "--html")),
    ],
    ids=" ".join,
)
def test_files_are_offered(offers, words: tuple[str, ...]) -> None:
    assert {"text.txt", "mnist"} <= offers(*words, "")


@needs_bash
@pytest.mark.parametrize(
    "words",
    [("train", "digits", "--mnist"), ("gpu",), ("run", "--results"), ("publish", "--html-dir")],
    ids=" ".join,
)
def test_folders_are_offered(offers, words: tuple[str, ...]) -> None:
    found = offers(*words, "")
    assert "mnist" in found and "text.txt" not in found


@needs_bash
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("run", "--suite"), set(SUITES)),
        (("example",), set(EXAMPLES)),
        (("completion",), set(SHELLS)),
        (("check", "--backends"), set(backends.NAMES)),
        (("compare", "--cells"), set(cells.BUILT_IN)),
        (("show",), set(cells.BUILT_IN)),
        (("train", "words", "--cell"), set(cells.BUILT_IN)),
        (("train", "words", "--optimiser"), {"adam", "sgd"}),
        (("train",), {"digits", "words"}),
        (("report", "--format"), {"table", "markdown", "csv", "parquet", "html"}),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_names_are_offered(offers, words: tuple[str, ...], names: set[str]) -> None:
    assert names <= offers(*words, "")


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        yield action


def test_all_names_that_are_offered_are_ones_that_the_parser_takes() -> None:
    from rnnbench.cli.completion import NAMES

    found = [action for action in actions(build()[0]) if action.dest in NAMES]
    assert {action.dest for action in found} == set(NAMES)
    lists = {"against", "backends", "cells", "dtypes"}
    for action in found:
        for name in NAMES[action.dest] if action.dest not in lists | {"backend", "baseline"} else ():
            assert action.type is None or action.type(name) == name  # type: ignore[operator]
