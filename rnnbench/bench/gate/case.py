"""The gate's cases: those of the other benchmarks, and with how many threads each is timed."""

from __future__ import annotations

from dataclasses import dataclass

from rnnbench.bench.cases import Case


@dataclass(frozen=True)
class GateCase(Case):
    """A case that is timed with `threads` threads, in workers that share as many cores; it is verified with all there are.

    threads: 1 is the default since one core gives the steadiest times.

    Raises ValueError as `Case` does, and for less than one thread.
    """

    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1; got {self.threads!r}")

    def __str__(self) -> str:
        return super().__str__() + (f" threads={self.threads}" if self.threads > 1 else "")
