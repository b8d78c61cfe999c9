"""asv's site of a made-up history: `rnnbench publish` makes and checks it, and a real browser draws it."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import report_tree
from gate_projects import commit, git

from rnnbench import cli
from rnnbench.bench import site
from rnnbench.bench.checkout import SuiteError

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"cells": ["lstm"], "backends": ["numpy"], "hidden_sizes": [32, 64], "seq_lens": [16], "batch_sizes": [4]}
SLOWER_FROM = 4  # of six commits


def slower(case: report_tree.Case) -> float:
    return 2 * (report_tree.seconds(case) or 0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of six commits, the last two of which are twice as slow."""
    root = tmp_path_factory.mktemp("my history")
    shutil.copy(ROOT / "asv.conf.json", root)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as told:
        for number in range(6):
            patch.setenv("GIT_COMMITTER_DATE", f"2026-10-0{number + 1}T12:00:00Z")
            made = commit(root, {"number": str(number)})
            date_ms = 1000 * int(git(root, "log", "-1", "--format=%ct"))
            seconds = slower if number >= SLOWER_FROM else report_tree.seconds
            report_tree.write(root / "results", commit=made, date_ms=date_ms, seconds=seconds, **SMALL)  # type: ignore[arg-type]
        patch.chdir(root)
        assert cli.main(["publish", "--html-dir", str(root / "site")]) == 0
    assert f"http.server --directory '{root / 'site'}')" in told.getvalue()
    return root / "site"


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "site"))


@pytest.mark.parametrize("kind", ["a folder with a file", "a file"])
def test_nothing_but_a_site_is_cleared_for_one(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = thesis = tmp_path / "docs"
    if kind == "a folder with a file":
        place.mkdir()
        thesis = place / "thesis.txt"
    thesis.write_text("years of work")
    assert cli.main(["publish", "--html-dir", str(place)]) == 2
    assert thesis.read_text() == "years of work"
    said = capsys.readouterr().err
    assert said.startswith(f"rnnbench: {place}") and ("would delete them" in said or "needs a folder" in said)


@pytest.mark.parametrize("damaged", ["the result file", "machine.json", "no machine.json"])
def test_a_damaged_result_file_is_told_and_not_left_out(
    damaged: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(published.parent, tmp_path / "history"))
    result, *_ = sorted(root.glob("results/*/*-py*.json"))
    path = result if damaged == "the result file" else result.with_name("machine.json")
    if damaged == "no machine.json":
        path.unlink()
    else:
        path.write_text(path.read_text()[:50])
    monkeypatch.chdir(root)
    capsys.readouterr()
    assert cli.main(["publish", "--html-dir", str(tmp_path / "site")]) == 2
    assert f"rnnbench: {path} cannot be read" in capsys.readouterr().err and not (tmp_path / "site").exists()


def test_a_whole_site_is_counted(published: Path) -> None:
    found = site.check(published)
    assert found.commits == 6 and found.benchmarks == 15 and found.points == 6 * found.lines
    assert found.regressions >= 4  # every sweep of inference and of training
    assert found.empty == ["startup.Startup.track_compile_seconds"]  # NumPy compiles nothing
    assert str(found).startswith("15 benchmarks, 6 commits, ")


def regressions_of_another(folder: Path) -> None:
    (folder / "regressions.json").write_text('{"regressions": [["speed.Gone.time_it(1)", "", {}, null, 1, 2, []]]}')


def a_revision_too_many(folder: Path) -> None:
    path = next(folder.glob("graphs/arch*/**/memory.Baseline.peakmem_empty.json"))
    path.write_text(json.dumps([*json.loads(path.read_text()), [99, 1.0]]))


def a_line_too_few(folder: Path) -> None:
    path = next(folder.glob("graphs/arch*/**/speed.ForwardOverHiddenSize.time_forward.json"))
    points = json.loads(path.read_text())
    points[-1][1].pop()
    path.write_text(json.dumps(points))


def no_numbers(folder: Path) -> None:
    for path in (folder / "graphs").rglob("*.json"):
        path.write_text("[]")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "regressions.js").unlink(), "lacks regressions.js"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json of the site cannot be read"),
        (lambda folder: (folder / "index.json").write_text("{}"), "is not an index of asv's"),
        (lambda folder: (folder / "regressions.json").unlink(), "regressions.json of the site cannot be read"),
        (regressions_of_another, "lists 'speed.Gone.time_it\\(1\\)', which is not a benchmark"),
        (a_revision_too_many, "has a point at revision 99"),
        (a_line_too_few, "has 2 lines and, at revision 5, 1 numbers"),
        (no_numbers, "shows no number at all"),
    ],
)
def test_damage_is_seen(copy: Path, damage: Callable[[Path], object], sentence: str) -> None:
    damage(copy)
    with pytest.raises(SuiteError, match=sentence):
        site.check(copy)


# --- in a browser -----------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# asv's pages load jQuery, Flot and others from the network; where there is none, a folder with these files by name will do.
LIBRARIES = os.environ.get("RNNBENCH_SITE_LIBRARIES")


def libraries_at_hand(folder: Path) -> None:
    """Let the pages take their libraries from LIBRARIES, or skip where neither that nor the network has them."""
    pages = [folder / "index.html"]
    sources = re.findall(r'(?:src|href)="(https://[^"]+[.](?:js|css))"', pages[0].read_text())
    assert any("jquery" in source for source in sources) and any("flot" in source for source in sources)
    if LIBRARIES is None:
        try:
            urllib.request.urlopen(sources[0], timeout=5).close()
        except OSError as error:
            pytest.skip(
                f"{sources[0]}, which asv's site loads, cannot be reached ({error}); set RNNBENCH_SITE_LIBRARIES"
            )
        return
    text = pages[0].read_text()
    for source in sources:
        name = source.rpartition("/")[2]
        text = re.sub(rf'"{re.escape(source)}"( integrity="[^"]*")?( crossorigin="[^"]*")?', f'"{name}"', text)
        found = next(
            path for path in (Path(LIBRARIES) / name, Path(LIBRARIES) / name.replace(".min", "")) if path.is_file()
        )
        shutil.copy(found, folder / name)
    pages[0].write_text(text)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(copy: Path) -> Iterator[str]:
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    libraries_at_hand(copy)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(copy)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def drawn(address: str, profile: Path) -> str:
    """The page as it is after its scripts have run."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=10000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_draws_the_graphs(address: str, tmp_path: Path) -> None:
    page = drawn(address + "#speed.ForwardOverHiddenSize.time_forward", tmp_path / "profile")
    graph = page[page.index('id="main-graph"') :]
    assert 'class="flot-base"' in graph and 'class="flot-text"' in graph
    assert "inference over hidden size" in page.lower() or "time_forward" in page
    assert "Failed to load" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_a_browser_lists_the_regressions(address: str, tmp_path: Path) -> None:
    page = drawn(address + "#regressions", tmp_path / "profile")
    body = page[page.index('id="regressions-body"') :]
    assert "time_forward" in body and re.search(r"2\.0\d?x", body)
