"""Files that are whole or as they were: what an error names, and what is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from rnnbench.files import replace_file, replace_text, require_writable


@pytest.mark.parametrize("write", [lambda path: replace_text(path, "new"), require_writable])
@pytest.mark.parametrize("name", [".", "folder"])
def test_a_folder_is_no_file(write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write(name)
    assert error.value.filename == name and [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.npz"
    with pytest.raises(FileNotFoundError) as error:
        replace_file(path, lambda file: file.write(b"new"))
    assert error.value.filename == str(path)
    assert str(error.value) == f"[Errno 2] No such file or directory: {str(path)!r}"


def test_what_fails_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device", "/somewhere/else")

    path = tmp_path / "a.txt"
    replace_text(path, "whole")
    with pytest.raises(OSError, match="No space") as error:
        replace_file(path, fail)
    assert error.value.filename == "/somewhere/else"
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]
