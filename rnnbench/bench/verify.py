"""Is a backend correct? Every case is checked against the oracle before anything is timed.

Two errors are computed for each tensor: the normwise relative error ||got - expected|| / ||expected||, and the
largest absolute error. Both have tolerances that follow from the dtype and the sizes (see `tolerance`). A tensor that
is missing, has the wrong shape or dtype or contains a NaN is wrong in any case.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rnnbench import backends
from rnnbench.backends.threads import get_threads
from rnnbench.bench import oracle
from rnnbench.bench.cases import Case, Unusual
from rnnbench.bench.session import Session, Unsupported
from rnnbench.bench.stored import STORED
from rnnbench.bench.tolerance import Tolerances, tolerances
from rnnbench.cells import Cell
from rnnbench.params import NotHeld

STATUSES = ("ok", "skipped", "wrong", "failed")


@dataclass(frozen=True)
class Verification:
    """How a case compares with its oracle.

    status: "ok"; "skipped", the backend cannot run it, or rounding alone may change its results beyond recognition; "wrong", it
    disagrees; "failed", it crashed or there is no oracle. error, tolerance: of the tensor `worst`, which uses the largest
    fraction of its tolerance; the error is relative, or absolute if `worst` ends with " (absolute)". NaN if nothing was compared.
    reason: a sentence, empty if the status is "ok". runs: the backend's description of itself; empty if none was loaded.
    """

    case: Case
    status: str
    error: float = math.nan
    tolerance: float = math.nan
    worst: str = ""
    reason: str = ""
    runs: str = ""

    @property
    def ok(self) -> bool:
        """Whether the case may be timed."""
        return self.status == "ok"

    @property
    def used(self) -> float:
        """The part of its tolerance that the error is; infinity if the error is not a number, or not 0 where nothing is allowed."""
        part = _ratio(self.error, self.tolerance)
        return math.inf if math.isnan(part) else part

    def record(self) -> dict[str, Any]:
        """The line that `record.append` writes beside asv's results."""
        case = asdict(self.case)
        names = ("cell", "backend", "dtype", "direction", "seq_len", "batch_size", "input_size", "hidden_size")
        flops = self.case.flops if self.status != "failed" else None
        return {
            "record": "case",
            **{name: case[name] for name in names},
            "threads": get_threads(),
            "runs": self.runs,
            "flops": flops,
            "status": self.status,
            "error": self.error,
            "tolerance": self.tolerance,
            "worst": self.worst,
            "reason": self.reason,
        }


class NotVerified(RuntimeError):
    """A case that must not be timed, because it is wrong or failed. `verification` says which."""

    def __init__(self, verification: Verification) -> None:
        super().__init__(f"{verification.case}: {verification.status}: {verification.reason}")
        self.verification = verification


def verify(case: Case) -> Verification:
    """Run a case once and compare all of its results. Raises ValueError, only for an unknown cell or backend."""
    return _verified(case, 1)[0]


def verified_session(case: Case) -> tuple[Verification, Session | None]:
    """`verify` for two runs, and the session if it passed, ready to be timed; None unless the status is "ok".

    Two runs, because it is later calls that are timed, and those find buffers as the previous call left them.
    """
    return _verified(case, 2)


def require_network(
    cell: str | Cell,
    hidden_size: int,
    backend: str = "numpy",
    dtype: str = "float64",
    numbers: tuple[tuple[str, float], ...] = (),
) -> None:
    """Verify a network with a few short sequences. The backend is by default the one that whole programs are compared with, which
    would agree with itself whatever it computes.

    cell: its name, or the cell itself. hidden_size: also the input's size. backend, dtype: as of a case. numbers: of the cell,
    where they are not its defaults, as in `Unusual`.

    Raises NotVerified unless the status is "ok", and ValueError as `verify` does.
    """
    sizes = (6, 3, hidden_size, hidden_size)
    named: Any = cell  # a case finds either
    verification = verify(Unusual(named, backend, dtype, "train", *sizes, lengths="ragged", options=numbers))
    if not verification.ok:
        raise NotVerified(verification)


def _verified(case: Case, runs: int) -> tuple[Verification, Session | None]:
    backends.why_unavailable(case.backend)
    try:
        _ = case.spec  # an unknown cell or backend is the caller's mistake: its ValueError is not caught
    except NotHeld as error:
        return Verification(case, "skipped", reason=str(error)), None
    try:
        session = Session(case)
    except Unsupported as error:
        return Verification(case, "skipped", reason=str(error)), None
    except Exception as error:  # a backend that cannot be prepared is a finding, and the next case must still run
        return _failed(case, error), None
    try:
        allowed, expected = tolerances(case), None
        for _ in range(runs):
            with np.errstate(all="ignore"):  # values that are not finite are reported below
                got = session.result(session.run())
            if expected is None:  # computed late, so that a failing backend does not wait for the oracle
                allowed = measured_tolerances(case)
                if reason := allowed.why_untold(case):
                    return Verification(case, "skipped", reason=reason, runs=session.runs), None
                expected = oracle.expected(case.on(""), STORED.get(case.backend))
            verification = compare(case, got, expected, allowed)
            verification = replace(verification, runs=session.runs)
            if not verification.ok:
                break
    except Exception as error:
        return _failed(case, error), None
    session.verified = verification.ok
    return verification, session if verification.ok else None


def measured_tolerances(case: Case) -> Tolerances:
    """The tolerances of a case. Where the oracle is the equation itself, errors grow as they are measured to grow in it."""
    if oracle.by_equation(case):
        return tolerances(case, oracle.gain(case), oracle.sensitivity(case))
    return tolerances(case)


def _failed(case: Case, error: Exception) -> Verification:
    return Verification(case, "failed", reason=in_a_sentence(error))


def in_a_sentence(error: Exception) -> str:
    """The first line of an error's message, with the error's type unless the message already says it."""
    kind = "" if isinstance(error, oracle.OracleError | MemoryError) else f"{type(error).__name__}: "
    return kind + (str(error).strip() or "no message").splitlines()[0]


def compare(
    case: Case, got: dict[str, np.ndarray], expected: dict[str, np.ndarray], allowed: Tolerances
) -> Verification:
    """Compare results tensor by tensor; both dicts use the names of `Session.result`."""
    forward = {"output", *(f"{state}_n" for state in case.spec.cell.states)}
    extra = set(got) - set(expected)
    if extra:
        return Verification(
            case, "wrong", math.inf, 0.0, min(extra), f"the backend returns {min(extra)}, which is not a result"
        )
    compared: list[Verification] = []
    for name, right in expected.items():
        if name not in got:
            return Verification(case, "wrong", math.inf, 0.0, name, f"there is no {name} among the results")
        value = got[name]
        if value.shape != right.shape or value.dtype != case.dtype:
            found = f"{value.dtype} {value.shape}, and {case.dtype} {right.shape} is expected"
            return Verification(case, "wrong", math.inf, 0.0, name, f"{name} is {found}")
        gradient = name not in forward
        with np.errstate(all="ignore"):  # a wrong backend may return anything
            difference = value.astype(np.float64) - right
            relative = _ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(right)))
            largest = float(np.abs(difference).max())
        for measure, error, tolerance in (
            ("", relative, allowed.relative(gradient)),
            (" (absolute)", largest, allowed.absolute(gradient, right)),
        ):
            compared.append(Verification(case, "ok", error, tolerance, name + measure))
    worst = max(compared, key=lambda found: found.used)
    if worst.used <= 1:
        return worst
    error, tolerance, name = worst.error, worst.tolerance, worst.worst
    size = "that is not a number" if math.isnan(error) else f"of {error:.1e}"
    kind = "an absolute" if name.endswith(")") else "a relative"
    reason = f"{name.split()[0]} has {kind} error {size}; up to {tolerance:.1e} is rounding"
    return Verification(case, "wrong", error, tolerance, name, reason)


def _ratio(part: float, whole: float) -> float:
    """part / whole, where 0 / 0 is 0."""
    if whole == 0:
        return 0.0 if part == 0 else math.nan if math.isnan(part) else math.inf
    return part / whole
