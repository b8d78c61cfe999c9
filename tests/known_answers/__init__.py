"""Known answers of other projects as cases: networks, how to run them, and what must come out, by source and name.

`CASES` maps "source/name" to a function that makes the case. What is compared, and how, is in docs/known-answers.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import cells, frameworks, keras, onnx_nodes
from .case import Case

DATA = Path(__file__).parent.parent / "data" / "known_answers"
ENTRIES: list[dict[str, Any]] = json.loads((DATA / "known_answers.json").read_text())["cases"]
# the first part of a case's id, then what its name begins with in known_answers.json, then who makes it
TESTS: dict[str, tuple[str, Callable[[dict[str, Any], float], Case]]] = {
    "keras-tests": ("keras_", keras.from_test),
    "tensorflow-tests": ("tf1_", cells.from_test),
    "pytorch-tests": ("pytorch_", cells.from_test),
    "onnxruntime-tests": ("ort_", onnx_nodes.from_test),
}


def _test(make: Callable[[dict[str, Any], float], Case], entry: dict[str, Any]) -> Case:
    """A case of another project's tests. Its numbers are rounded: as far from ours as from an independent evaluation."""
    return make(entry, entry["verify"]["ref64_maxabs"] + 1e-12)


def _node(entry: dict[str, Any], runtime: bool) -> Case:
    with np.load(DATA / "onnx" / f"{entry['name']}.npz") as stored:
        return onnx_nodes.from_run(entry, dict(stored), runtime)


def _cases() -> dict[str, Callable[[], Case]]:
    found: dict[str, Callable[[], Case]] = {}
    for entry in ENTRIES:
        kind, (prefix, make) = next(item for item in TESTS.items() if entry["id"].startswith(item[1][0]))
        found[f"{kind}/{entry['id'].removeprefix(prefix)}"] = partial(_test, make, entry)
    for name in frameworks.ENTRIES:
        kind, _, rest = name.partition("_")
        source = {"tf1": "tensorflow", "torch": "pytorch"}[kind]
        found[f"{source}-runs/{rest}"] = partial(frameworks.case, name)
    for entry in json.loads((DATA / "onnx" / "index.json").read_text()):
        found[f"onnxruntime-runs/{entry['name']}"] = partial(_node, entry, True)
        found[f"onnx-specification/{entry['name']}"] = partial(_node, entry, False)
    return found | {f"onnx-package/{name}": partial(onnx_nodes.from_node_test, name) for name in onnx_nodes.NODE_TESTS}


CASES = _cases()
