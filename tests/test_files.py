"""Files that are whole or as they were: what an error names, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from rnnbench import files
from rnnbench.files import replace_file, replace_text, require_writable


@pytest.mark.parametrize("write", [lambda path: replace_text(path, "new"), require_writable])
@pytest.mark.parametrize("name", [".", "folder"])
def test_a_folder_is_no_file(write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write(name)
    assert error.value.filename == name and [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("write", [lambda path: replace_text(path, "new"), require_writable])
@pytest.mark.parametrize("name", ["file/a.json", "file/folder/a.json"])
def test_a_file_is_no_folder(write, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as error:
        write(tmp_path / name)
    assert str(error.value) == f"[Errno 20] Not a directory: {str(tmp_path / name)!r}"


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


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    def fill(file: IO[bytes]) -> None:
        raise OSError(28, "No space left on device")  # as `write` of an open file says it

    path = tmp_path / "a.npz"
    with pytest.raises(OSError, match="No space") as error:
        replace_file(path, fill)
    assert str(error.value) == f"[Errno 28] No space left on device: {str(path)!r}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_device_is_told_by_its_name_and_stays() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        replace_text("/dev/full", "new")
    assert Path("/dev/full").is_char_device()


def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "a.txt", tmp_path / "disk" / "b.txt"
    target.write_text("old")
    link.symlink_to(target)
    require_writable(link)
    replace_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new" and list((tmp_path / "disk").iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with a name")
def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    require_writable(path)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(path.read_text)
        replace_text(path, "through")
        assert read.result(timeout=10) == "through"
    assert path.is_fifo() and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="Windows has no names for open files")
def test_an_open_pipe_is_written_into_by_its_name() -> None:
    """As a shell gives one: /dev/stdout before a |, and >(command)."""
    back, forth = os.pipe()
    name = f"/dev/fd/{forth}"
    try:
        require_writable(name)
        replace_text(name, "through")
        assert os.read(back, 100) == b"through"
    finally:
        os.close(back)
        os.close(forth)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="Windows has no names for open files")
def test_standard_output_is_written_to_by_its_name() -> None:
    program = "from rnnbench.files import *; require_writable('/dev/stdout'); replace_text('/dev/stdout', 'through')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "through", "")


def test_what_cannot_be_cleared_away_does_not_hide_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is read-only refuses both."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(arguments[0]))

    monkeypatch.setattr(files, "open", refuse, raising=False)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as error:
        replace_text(tmp_path / "a.txt", "new")
    assert error.value.filename == str(tmp_path / "a.txt")
