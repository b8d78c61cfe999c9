"""What is said of a name that nobody knows: the nearest one that is known, and all there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ "did you mean 'lstm'? " for 'lstn'; nothing where no known name is near, or where the name is no text."""
    if not isinstance(name, str) or not name:
        return ""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name.lower(), known, n=1)
    near = near or [other for other in known if other.startswith(name) or name.startswith(other)]  # rnn of rnn_tanh
    return f"did you mean {near[0]!r}? " if near else ""


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The sentence of an error: unknown cell 'lstn'; did you mean 'lstm'? choose from gru, lstm.

    what: kind of thing that it should name. known: the names that there are, one at least.
    """
    known = list(known)
    return f"unknown {what} {name!r}; {did_you_mean(name, known)}choose from {', '.join(known)}"
