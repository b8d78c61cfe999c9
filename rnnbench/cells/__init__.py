"""Cells: equations -> graph -> derivative -> code. This package knows no backend and imports no library but NumPy."""

from __future__ import annotations

import copyreg
import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import plugins
from ..spelling import did_you_mean, unknown
from .graph import CellError, exp, log, maximum, minimum, relu, sigmoid, sqrt, tanh, where
from .library import BUILT_IN
from .program import Program, program
from .projection import PROJECTION, projectable, projected
from .show import show
from .trace import Cell, cell
from .variants import NAME, variant

__all__ = [
    "BUILT_IN",
    "NAME",
    "PROJECTION",
    "Cell",
    "CellError",
    "Program",
    "cell",
    "exp",
    "find",
    "flops",
    "load_file",
    "log",
    "maximum",
    "minimum",
    "program",
    "projectable",
    "projected",
    "relu",
    "show",
    "sigmoid",
    "sqrt",
    "tanh",
    "where",
]


def find(name: str | Cell) -> Cell:
    """Find a cell by its name: a built-in one, a variant such as "lstm[clip=0.5]", "path/to/file.py:name", or a name that another
    package has registered (see `rnnbench.plugins`). A Cell is returned as it is.

    Raises ValueError, with the nearest name, if the name is unknown, and CellError if the file holds no such cell.
    """
    if isinstance(name, Cell):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a cell is named by a string or made with @cell; {name!r} is neither")
    if name in BUILT_IN:
        return BUILT_IN[name]
    if _IN_FILE.fullmatch(name):
        return load_file(name)
    if NAME.fullmatch(name):
        return variant(name)
    target = plugins.target(plugins.CELLS, name)
    if target is not None and _IN_FILE.fullmatch(target):
        return load_file(target)
    registered = plugins.load(plugins.CELLS, name)
    if registered is not None:
        if isinstance(registered, Cell):
            return registered
        raise ValueError(
            f"{name!r} is registered as a cell but is of type {type(registered).__name__}; make it a cell with @cell"
        )
    others = plugins.names(plugins.CELLS)
    raise ValueError(
        f"{unknown('cell', name, [*BUILT_IN, *others])}, variants such as lstm[clip=0.5], or path/to/file.py:name"
    )


_IN_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<name>.*))?", re.DOTALL)
_USERS = "rnnbench_user_"  # modules made from users' files have this name, followed by a hash of path and text


def load_file(reference: str) -> Cell:
    """The cell in a user's file, "path/to/file.py:name"; the name may be left out if the file holds one cell only.

    `name` is the variable that holds the cell. The file runs once, and again after its text has changed.
    Raises CellError if the file or the cell does not exist; errors raised by the file itself pass through.
    """
    match = _IN_FILE.fullmatch(reference)
    if match is None:
        raise CellError(f"a cell in a file is named path/to/file.py:name, not {reference!r}")
    path, wanted = Path(match["path"]), match["name"]
    if not path.is_file():
        raise CellError(f"there is no file {str(path)!r} to take the cell {wanted or '(any)'} from")
    module = _module_of(path.resolve())
    cells = {n: c for n, c in vars(module).items() if isinstance(c, Cell) and c not in BUILT_IN.values()}
    if wanted in cells:
        return cells[wanted]
    if not wanted and len(set(cells.values())) == 1:
        return next(iter(cells.values()))
    if not cells:
        raise CellError(f"{path} holds no cell; write @cell above a function")
    hint, found = did_you_mean(wanted, cells), ", ".join(cells)
    raise CellError(
        f"{path} holds no cell {wanted!r}; {hint}its cells: {found}" if wanted else f"{path}: name one of: {found}"
    )


def _module_of(path: Path) -> ModuleType:
    """The file as a module; the same module until the file's text changes, so that its present text is what is measured."""
    source = path.read_bytes()
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()
    name = f"{_USERS}{digest[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # before it runs: dataclasses look up the module that they are defined in
        try:
            # without an import loader, which would trust a .pyc made for a source of the same size and second
            exec(compile(source, str(path), "exec"), vars(module))
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, SystemExit):  # it would end the command that needs the cell, with nothing checked
                raise CellError(
                    f"{path} ends the program while it is read for its cells (sys.exit({error.code!r})); "
                    'put that below if __name__ == "__main__"'
                ) from error
            raise
    return sys.modules[name]


def _reduced(cell: Cell) -> Any:
    """What copies and pickles of a cell hold: its name in its module, as for a function. For a cell from a user's file, whose
    module no other process could import, they also hold the file's path.
    """
    if cell.__module__.startswith(_USERS):
        module = sys.modules[cell.__module__]
        for name, held in vars(module).items():
            if held is cell:
                return _of_file, (module.__file__, cell.__module__, name)
    return cell.__qualname__


copyreg.pickle(Cell, _reduced)


def _of_file(path: str, module: str, name: str) -> Cell:
    """The cell that was pickled. Raises CellError if its file has changed since, OSError if the file is gone."""
    if module not in sys.modules and _module_of(Path(path)).__name__ != module:
        raise CellError(f"{path} has changed since its cell {name} was pickled")
    found: Cell = vars(sys.modules[module])[name]
    return found


def flops(cell: Cell, seq_len: int, batch_size: int, input_size: int, hidden_size: int, direction: str) -> int:
    """Floating-point operations of the matrix products of one layer that reads its sequences one way. A multiply-add counts as two.

    direction: "forward" for inference, or "train" for forward and backward passes, in which each product occurs three times:
    itself, the gradient of its matrix and the gradient of its operand. By convention, pointwise work is not counted.
    """
    if direction not in ("forward", "train"):
        raise ValueError(f"direction must be 'forward' or 'train', not {direction!r}")
    products = sum(len(operand.pre) for operand in program(cell, False).operands)
    columns = len(cell.input_gates) * input_size + products * hidden_size
    return 2 * seq_len * batch_size * hidden_size * columns * (3 if direction == "train" else 1)
