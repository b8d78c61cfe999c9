"""Backends by name. A backend is a module with `prepare` and `why_unsupported`; `base` tells what they promise."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import cast

from .base import Backend

# name -> (module below this package, the library that it needs)
_MODULES = {"numpy": ("numpy_backend", "numpy"), "numba-cpu": ("numba_cpu", "numba")}
NAMES = tuple(_MODULES)


class BackendUnavailable(RuntimeError):
    """The backend exists, and its library cannot be used here; the message says why."""


def load(name: str) -> Backend:
    """The backend called `name`, imported at the first call.

    Raises ValueError with the nearest name for an unknown one, BackendUnavailable where its library is missing.
    """
    reason = why_unavailable(name)
    if reason is not None:
        raise BackendUnavailable(reason)
    return cast(Backend, importlib.import_module(f".{_MODULES[name][0]}", __name__))


def why_unavailable(name: str) -> str | None:
    """Why the backend cannot be used in this environment, in a sentence, or None if it can. Raises ValueError likewise."""
    if not isinstance(name, str) or name not in _MODULES:
        near = difflib.get_close_matches(str(name), _MODULES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no backend {name!r}; {hint}known are {', '.join(_MODULES)}")
    library = _MODULES[name][1]
    if importlib.util.find_spec(library) is None:
        return f"the backend {name} needs the package {library}, which is not installed: pip install {library}"
    try:
        importlib.import_module(library)
    except Exception as error:  # Numba, for one, refuses a NumPy that is too new for it
        return f"the backend {name} needs the package {library}, which does not load: {type(error).__name__}: {error}"
    return None
