"""What a cell is: equations -> graph -> derivative -> code. Knows no backend; imports only NumPy."""

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
from .projection import PROJECTION, projected
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
    "projected",
    "relu",
    "show",
    "sigmoid",
    "sqrt",
    "tanh",
    "where",
]


def find(name: str | Cell) -> Cell:
    """The built-in cell called `name`, a variant such as "lstm[clip=0.5]", the cell at "path/to/file.py:name", one that another
    package has registered (see `rnnbench.plugins`), or a cell itself.

    Raises ValueError with the nearest name for an unknown one, CellError for a file without such a cell.
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
    where = plugins.target(plugins.CELLS, name)
    if where is not None and _IN_FILE.fullmatch(where):
        return load_file(where)
    registered = plugins.load(plugins.CELLS, name)
    if registered is not None:
        if isinstance(registered, Cell):
            return registered
        raise ValueError(
            f"{name!r} is registered as a cell but is a {type(registered).__name__}; make it a cell with @cell"
        )
    others = plugins.names(plugins.CELLS)
    raise ValueError(
        f"{unknown('cell', name, [*BUILT_IN, *others])}, variants such as lstm[clip=0.5], or path/to/file.py:name"
    )


_IN_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<name>.*))?", re.DOTALL)
_USERS = "rnnbench_user_"  # what the modules of users' files are called, with a hash of path and text behind it


def load_file(reference: str) -> Cell:
    """The cell of a user's file, "path/to/file.py:name"; the name may be left out where the file holds one cell.

    name is that of the variable that holds the cell. The file runs once, and again when its text has changed.
    Raises CellError where the file or the cell does not exist; what the file itself raises passes through.
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
    """The file as a module, the same one until its text changes: what is measured is what the file says now."""
    source = path.read_bytes()
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()
    name = f"{_USERS}{digest[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # before it runs: dataclasses look up the module that they are defined in
        try:
            # not by a loader: that one trusts a .pyc of the same size and second
            exec(compile(source, str(path), "exec"), vars(module))
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, SystemExit):  # it would end the command that wants the cell, with nothing checked
                raise CellError(
                    f"{path} ends the program while it is read for its cells (sys.exit({error.code!r})); "
                    'put that below if __name__ == "__main__"'
                ) from error
            raise
    return sys.modules[name]


def _reduced(cell: Cell) -> Any:
    """What copies and pickles of a cell hold: as for a function the name under which its module has it, and of a file, whose module
    no other process could import, its path.
    """
    if cell.__module__.startswith(_USERS):
        module = sys.modules[cell.__module__]
        for name, held in vars(module).items():
            if held is cell:
                return _of_file, (module.__file__, cell.__module__, name)
    return cell.__qualname__


copyreg.pickle(Cell, _reduced)


def _of_file(path: str, module: str, name: str) -> Cell:
    """The cell that was pickled. Raises CellError where its file has changed since, OSError where there is none."""
    if module not in sys.modules and _module_of(Path(path)).__name__ != module:
        raise CellError(f"{path} has changed since its cell {name} was pickled")
    found: Cell = vars(sys.modules[module])[name]
    return found


def flops(cell: Cell, seq_len: int, batch_size: int, input_size: int, hidden_size: int, direction: str) -> int:
    """Floating-point operations of the matrix products of one layer that reads its sequences one way (a multiply-add counts two).

    direction: "forward" for inference, or "train" for forward and backward passes, where each product appears three times (itself,
    the gradient of its matrix, the gradient of its operand). Pointwise work is not counted, as is the custom.
    """
    if direction not in ("forward", "train"):
        raise ValueError(f"direction must be 'forward' or 'train', not {direction!r}")
    products = sum(len(operand.pre) for operand in program(cell, False).operands)
    columns = len(cell.input_gates) * input_size + products * hidden_size
    return 2 * seq_len * batch_size * hidden_size * columns * (3 if direction == "train" else 1)
