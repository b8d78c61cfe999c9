"""The project keeps its house rules, and each rule sees a text that breaks it; what `import rnnbench` costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from house_rules import (
    MAX_LINES,
    ROOMS,
    ROOT,
    documentation_problems,
    forbidden_imports,
    module_name,
    python_files,
    too_long,
)

MAX_IMPORT_SECONDS = 0.2
# `import rnnbench` loads none of these: they are slow to load, or may be missing.
HEAVY = {"asv", "jax", "keras", "llvmlite", "matplotlib", "numba", "onnxruntime", "pandas", "scipy", "torch"}

RULES = {
    "imports": (forbidden_imports, ("rnnbench", "benchmarks")),
    "length": (too_long, ("rnnbench", "benchmarks", "tests")),
    "docstrings": (documentation_problems, ("rnnbench",)),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_project_keeps_the_rule(rule: str) -> None:
    check, folders = RULES[rule]
    problems = [
        p for path in python_files(*folders) for p in check(module_name(path), path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


def test_the_rules_see_the_project() -> None:
    names = {module_name(path) for path in python_files("rnnbench")}
    assert {"rnnbench.__init__", "rnnbench.cells.trace", "rnnbench.backends.base", "rnnbench.bench.machine"} <= names


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rnnbench.cells.trace", "import numba"),
        ("rnnbench.cells.trace", "from ..backends import base"),
        ("rnnbench.cells.trace", "def late():\n    from rnnbench.params import Spec"),
        ("rnnbench.params", "from .backends.threads import get_threads"),
        ("rnnbench.reference", "from .cells import library"),
        ("rnnbench.reference", "from . import params"),
        ("rnnbench.reference", "import rnnbench"),
        ("rnnbench.backends.base", "from .numpy_backend import prepare"),
        ("rnnbench.backends.numpy_backend", "import numba"),
        ("rnnbench.backends.numpy_backend", "from ..rnn import RNN"),
        ("rnnbench.backends.numba_cpu.forward", "from ..numpy_backend import prepare"),
        ("rnnbench.backends.numba_cpu.forward", "import importlib\nimportlib.import_module('rnnbench.reference')"),
        ("rnnbench.backends.peers.torch", "import jax"),
        ("rnnbench.backends.peers.torch", "from . import jax"),
        ("rnnbench.rnn", "from .backends import numpy_backend"),
        ("rnnbench.rnn", "from .backends.numba_cpu.forward import run"),
        ("rnnbench.bench.verify", "from rnnbench.report import tables"),
        ("rnnbench.bench.verify", "from rnnbench.backends import numba_cpu"),
        ("rnnbench.report.tables", "from rnnbench import cells"),
        ("rnnbench.report.tables", "from ..backends import NAMES"),
        ("rnnbench.report.tables", "import numba.core"),
        ("rnnbench.a_room_that_nobody_knows", "import os"),
        ("rnnbench.backends.another", "import os"),
        ("benchmarks.speed", "import torch"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    assert forbidden_imports(module, source)


def test_allowed_imports_are_allowed() -> None:
    assert not forbidden_imports(
        "rnnbench.cells.__init__", "from .trace import Cell\nimport os.path\nimport numpy.typing"
    )
    assert not forbidden_imports("rnnbench.backends.numba_cpu.forward", "from ...cells import Cell\nfrom . import simd")
    assert not forbidden_imports("rnnbench.bench.verify", "from rnnbench import RNN, backends\nfrom . import cases")
    assert not forbidden_imports(
        "rnnbench.rnn", "from . import backends, cells, params\nfrom .backends.base import Network"
    )


def test_a_long_file_is_seen() -> None:
    assert not too_long("rnnbench.short", "pass\n" * MAX_LINES)
    assert too_long("rnnbench.long", "pass\n" * (MAX_LINES + 1))


GOOD = '''
def area(width, height, *, unit="m"):
    """The area of a wall.

    width: in metres, height likewise. unit: of the result.
    Raises ValueError: for negative ones.
    """
class Wall:
    """A wall. width: in metres."""
    def __init__(self, width): self.width = width
    def _own(self): pass
'''


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("unit: of the result.", "", "area does not document unit"),
        ("unit: of the result.", "unit: of the result. colour: of the wall.", "documents colour, no argument"),
        ('"""A wall. width: in metres."""', "pass", "Wall has no docstring"),
        ("(self, width)", "(self, width, height)", "Wall does not document height"),
        ("_own", "shared", "Wall.shared has no docstring"),
    ],
)
def test_a_docstring_that_lies_is_seen(old: str, new: str, sentence: str) -> None:
    assert not documentation_problems("rnnbench.walls", GOOD)
    assert old in GOOD
    assert sentence in "\n".join(documentation_problems("rnnbench.walls", GOOD.replace(old, new)))


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter of this environment that runs the code in the project's folder."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120
    )


def heavy_modules_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has loaded after running the code."""
    shown = run_python(f"{code}\nimport sys; print(*sys.modules)").stdout.split()
    return sorted(HEAVY.intersection(shown))


def seconds_to_import(code: str, tries: int) -> tuple[float, float]:
    """What running the code adds to a fresh interpreter's start, in seconds, and the most that is quick here and now.

    Quick is MAX_IMPORT_SECONDS. On a machine so slow or so busy that NumPy alone takes more than half of that, quick is
    twice NumPy's time, measured in turn with the code. Other work on the machine only ever adds time, so the least of
    several tries counts; it stops as soon as the code has been quick.
    """
    least = dict.fromkeys((code, "import numpy", "pass"), float("inf"))
    for _ in range(tries):
        for each in least:
            start = time.perf_counter()
            run_python(each)
            least[each] = min(least[each], time.perf_counter() - start)
        took, numpy_took = (least[each] - least["pass"] for each in (code, "import numpy"))
        quick = max(MAX_IMPORT_SECONDS, 2 * numpy_took)
        if took < quick:
            break
    return took, quick


def test_import_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import rnnbench") == []
    assert heavy_modules_after("import rnnbench, pandas") == ["pandas"]


def test_import_is_quick() -> None:
    took, quick = seconds_to_import("import rnnbench", tries=20)
    assert took < quick


def test_a_slow_import_is_seen() -> None:
    took, quick = seconds_to_import("import rnnbench, time; time.sleep(2)", tries=2)
    assert took > quick


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_paths_that_contributing_names_exist() -> None:
    named = set(re.findall(r"`((?:rnnbench|tests|benchmarks|docs|results|\.ci)/[\w./]*)`", CONTRIBUTING))
    assert len(named) > 15
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_contributing_lists_every_top_level_room() -> None:
    rooms = [name.split(".")[1] for name in ROOMS if name.count(".") == 1 and not name.endswith("__main__")]
    paths = {f"rnnbench/{name}/" if (ROOT / "rnnbench" / name).is_dir() else f"rnnbench/{name}.py" for name in rooms}
    first_columns = "\n".join(line.split("|")[1] for line in CONTRIBUTING.splitlines() if line.startswith("| `"))
    assert [path for path in sorted(paths) if f"`{path}`" not in first_columns] == []
