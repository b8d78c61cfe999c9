"""`rnnbench publish`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rnnbench.bench import site
from rnnbench.bench.checkout import SuiteError, find_checkout, publish
from rnnbench.cli.values import UsageError


def run(arguments: argparse.Namespace) -> int:
    """Make airspeed velocity's site, check it, and print what it holds and where it is."""
    try:
        root = find_checkout(Path.cwd(), "publish")
        page = publish(root, Path(arguments.results or root / "results"), arguments.html_dir)
        held = site.check(page.parent)
    except SuiteError as error:
        raise UsageError(str(error)) from error
    print(held)
    serve = shlex.join(["python", "-m", "http.server", "--directory", str(page.parent)])
    print(f"Site: {page} (a browser needs a server: {serve})")
    return 0
