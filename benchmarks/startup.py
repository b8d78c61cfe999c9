"""What a program pays once: compilation, the first call, the import."""

from __future__ import annotations

from rnnbench import backends
from rnnbench.bench.cases import grid
from rnnbench.bench.startup import COMPILES, compile_seconds, first_call_seconds

from .common import skip, use_threads


class Startup:
    """Seconds of the first call of a new process: with an empty kernel cache, and with a filled one."""

    params = [list(grid("Startup").cells), list(grid("Startup").backends)]
    param_names = ["cell", "backend"]
    timeout = 300
    version = "1"

    def setup(self, cell: str, backend: str) -> None:
        use_threads()
        reason = backends.why_unavailable(backend)
        if reason:
            skip(reason)

    def track_compile_seconds(self, cell: str, backend: str) -> float:
        if backend not in COMPILES:
            skip(f"{backend} keeps no compiled kernels")
        return compile_seconds(cell, backend)

    def track_first_call_seconds(self, cell: str, backend: str) -> float:
        return first_call_seconds(cell, backend)

    track_compile_seconds.pretty_name, track_compile_seconds.unit = "first call, nothing compiled yet", "seconds"
    track_first_call_seconds.pretty_name, track_first_call_seconds.unit = "first call, kernels on disk", "seconds"


class Import:
    """Seconds of `import rnnbench` in a new process."""

    rounds = 1
    repeat = 5
    number = 1
    warmup_time = 0
    timeout = 60
    version = "1"

    def timeraw_import_rnnbench(self) -> str:
        return "import rnnbench"

    timeraw_import_rnnbench.pretty_name = "import rnnbench"
