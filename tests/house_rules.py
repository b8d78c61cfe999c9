"""The house rules: who may import whom, how long a file may be, what a docstring owes its reader.

Each rule is a function from a module's name and text to sentences about what is wrong. test_architecture.py asks it
about every file of the project, and about texts that break it.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
# Arguments that mean the same wherever they occur, so that no docstring has to say it again.
CONVENTIONS = {"seq_len", "batch_size", "input_size", "hidden_size", "num_layers", "bidirectional", "cell", "dtype"}


class Room(NamedTuple):
    """A module or package: the other rooms of the project it may import, and the libraries besides the standard one."""

    imports: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


PLUGINS, FILES, SPELLING = "rnnbench.plugins", "rnnbench.files", "rnnbench.spelling"
CELLS = ("rnnbench.cells", "rnnbench.params", "rnnbench.memory", SPELLING)
# What backends share. None of them is a backend, so a backend that imports these still knows no other one.
SHARED = (
    "rnnbench.backends.base", "rnnbench.backends.stack", "rnnbench.backends.threads", "rnnbench.backends.kernel_files",
)  # fmt: skip
# How other libraries arrange weights, on NumPy arrays.
LAYOUTS = ("rnnbench.interop.layouts",)
NETWORKS = ("rnnbench", "rnnbench.rnn", "rnnbench.backends", "rnnbench.reference", *CELLS, *SHARED)
ROOMS = {
    "rnnbench": Room(("rnnbench.backends", "rnnbench.cells", "rnnbench.rnn")),
    "rnnbench.cells": Room((PLUGINS, SPELLING), ("numpy",)),
    "rnnbench.memory": Room(),
    "rnnbench.plugins": Room(),
    "rnnbench.files": Room(),
    "rnnbench.spelling": Room(),
    "rnnbench.params": Room(CELLS, ("numpy",)),
    "rnnbench.reference": Room((), ("numpy",)),
    "rnnbench.backends": Room((*SHARED, PLUGINS, SPELLING, "rnnbench.params")),
    "rnnbench.backends.base": Room(CELLS, ("numpy",)),
    "rnnbench.backends.stack": Room((*CELLS, *SHARED), ("numpy",)),
    "rnnbench.backends.threads": Room((), ("threadpoolctl",)),
    "rnnbench.backends.kernel_files": Room(),
    "rnnbench.backends.numpy_backend": Room((*CELLS, *SHARED), ("numpy",)),
    "rnnbench.backends.numba_cpu": Room((*CELLS, *SHARED), ("numpy", "numba", "llvmlite")),
    "rnnbench.backends.numba_cuda": Room((*CELLS, *SHARED), ("numpy", "numba", "numba_cuda", "llvmlite")),
    "rnnbench.backends.peers": Room(SHARED),
    "rnnbench.backends.peers.torch": Room((*CELLS, *SHARED, *LAYOUTS), ("numpy", "torch")),
    "rnnbench.backends.peers.onnxruntime": Room((*CELLS, *SHARED, *LAYOUTS), ("numpy", "onnxruntime", "onnx")),
    "rnnbench.backends.peers.jax": Room((*CELLS, *SHARED), ("numpy", "jax")),
    # Keras computes with one of the two, whose own differentiation it leaves to its users
    "rnnbench.backends.peers.keras": Room(
        (*CELLS, *SHARED, *LAYOUTS, "rnnbench.backends.peers.jax"), ("numpy", "keras", "jax", "torch")
    ),
    "rnnbench.rnn": Room((*CELLS, "rnnbench.backends", *SHARED), ("numpy",)),
    "rnnbench.interop": Room(
        (*CELLS, "rnnbench.backends", "rnnbench.rnn", "rnnbench.interop.layouts", FILES),
        ("numpy", "torch", "keras", "onnx", "onnxruntime"),
    ),
    "rnnbench.interop.layouts": Room(CELLS, ("numpy",)),
    "rnnbench.tasks": Room((*NETWORKS, FILES, "rnnbench.interop", "rnnbench.tasks.kernels"), ("numpy", "matplotlib")),
    # compiled and kept on disk as the backend's own
    "rnnbench.tasks.kernels": Room(("rnnbench.backends.numba_cpu", "rnnbench.backends.threads"), ("numpy", "numba")),
    # the same training in PyTorch, weights and data ours
    "rnnbench.tasks.torch_twin": Room((*NETWORKS, *LAYOUTS, "rnnbench.tasks"), ("numpy", "torch")),
    "rnnbench.bench": Room(
        (*NETWORKS, "rnnbench.tasks", "rnnbench.tasks.torch_twin", PLUGINS, FILES),
        ("numpy", "threadpoolctl", "asv", "asv_runner", "filelock", "packaging"),
    ),
    "rnnbench.report": Room((FILES,), ("numpy", "pandas", "asv", "matplotlib", "jinja2", "tabulate", "pyarrow")),
    "rnnbench.cli": Room(
        (*NETWORKS, "rnnbench.bench", "rnnbench.interop", "rnnbench.report", "rnnbench.tasks", FILES),
        ("numpy", "pandas", "asv", "shtab"),
    ),
    "rnnbench.__main__": Room(("rnnbench.cli",)),
    "benchmarks": Room((*NETWORKS, "rnnbench.bench"), ("numpy", "asv_runner")),
}
# Packages whose own files are rooms of their own: a new file in them has to be added to the table above.
HALLWAYS = ("rnnbench", "rnnbench.backends", "rnnbench.backends.peers")


def python_files(*folders: str) -> list[Path]:
    """Every Python file of the project in these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """rnnbench/cells/__init__.py -> rnnbench.cells.__init__; what its relative imports start from is one up."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(name: str) -> str | None:
    """The room that a module, or a name imported from it, belongs to; None for what is not the project's."""
    while name and name not in ROOMS:
        name = name.rpartition(".")[0]
    return name or None


def imported(module: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import in the text, also inside functions; `from a import b` gives a.b."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            if isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def forbidden_imports(module: str, source: str) -> list[str]:
    """Imports of a module that the table of rooms does not allow."""
    here = room_of(module)
    if here is None or (here in HALLWAYS and module != f"{here}.__init__"):
        return [f"{module} is in no room: add it to ROOMS with what it may import"]
    problems = []
    for line, name in imported(module, source):
        target = room_of(name)
        library = name.split(".")[0]
        if target is not None:
            allowed = target == here or target in ROOMS[here].imports
        else:
            allowed = library in sys.stdlib_module_names or library in ROOMS[here].libraries
        if not allowed:
            problems.append(f"{module}:{line} imports {name}; {here} may not import {target or library}")
    return problems


def too_long(module: str, source: str) -> list[str]:
    """A file that asks to be two."""
    lines = len(source.splitlines())
    return [f"{module} has {lines} lines; more than {MAX_LINES} is more than one room"] if lines > MAX_LINES else []


def documentation_problems(module: str, source: str) -> list[str]:
    """Public functions, classes and methods without a docstring, and docstrings that disagree with the signature.

    A docstring documents arguments where it says `name: ...` at the start of a line or sentence. Then each name so
    introduced has to be an argument (or an attribute of the class), and every argument has to occur, unless its name is
    one of CONVENTIONS or the docstring says that the arguments are those of another `function`. A property may be
    documented by its class instead.
    """
    problems = []
    for owner, node in public_definitions(ast.parse(source)):
        docstring = ast.get_docstring(node)
        where = f"{module}:{node.lineno} {owner.name + '.' if owner else ''}{node.name}"
        if docstring is None:
            if owner is None or not mentions(ast.get_docstring(owner) or "", node.name) or not is_property(node):
                problems.append(f"{where} has no docstring")
            continue
        required, known = names_of(node)
        introduced = set(re.findall(r"(?:^|(?<=[.;] ))\s*([A-Za-z_]\w*): ", docstring, flags=re.MULTILINE))
        introduced -= {"Raises", "Returns", "Yields", *vars(builtins)}
        if introduced & known:
            if not re.search(r"[Aa]rguments\b[^.]*`", docstring):
                missing = [name for name in required - CONVENTIONS if not mentions(docstring, name)]
                problems += [f"{where} does not document {name}" for name in missing]
            problems += [f"{where} documents {name}, no argument of it" for name in introduced - known]
    return sorted(problems)


def public_definitions(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, ast.FunctionDef | ast.ClassDef]]:
    """Functions, classes and methods whose names do not start with an underscore, with the class they are in."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield None, node
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    marks = {ast.unparse(decorator) for decorator in part.decorator_list}
                    if not marks & {"overload", "override", f"{part.name}.setter"}:
                        yield node, part


def is_property(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether it is read like an attribute."""
    return any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list)


def names_of(node: ast.FunctionDef | ast.ClassDef) -> tuple[set[str], set[str]]:
    """The arguments of a function or of a class's __init__, and these with the class's attributes.

    The fields of a dataclass are attributes: each has its name, its type and room for a comment where it is declared.
    """
    if isinstance(node, ast.FunctionDef):
        listed = node.args
        every = [*listed.posonlyargs, *listed.args, *listed.kwonlyargs, listed.vararg, listed.kwarg]
        arguments = {argument.arg for argument in every if argument is not None} - {"self", "cls"}
        return arguments, arguments
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    arguments = names_of(methods["__init__"])[0] if "__init__" in methods else set()
    stored = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return arguments, arguments | stored | fields | set(methods)


def mentions(docstring: str, name: str) -> bool:
    """Whether the name occurs as a word."""
    return re.search(rf"\b{re.escape(name)}\b", docstring) is not None
