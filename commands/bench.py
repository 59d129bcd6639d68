"""`forearm bench`: planners on one manifest of held-out goals; table, plot, film and report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..evaluation.measure import require_all, run_bench
from ..evaluation.results import Results
from ..evaluation.settings import BenchSettings
from ..folders import run_folder
from ..presets import suited
from .common import command_line

SETTINGS = BenchSettings


def run(given: Mapping[str, Any]) -> None:
    settings = suited(BenchSettings, given)
    with run_folder(settings.out, "bench", f"{settings.env.name}-{settings.obs}") as out:
        results = run_bench(settings, out=out, command=partial(command_line, "bench"))
        tell(results, out)
    require_all(results, settings)


def tell(results: Results, out: Path) -> None:
    print(results)
    print(f"goals: {results.more['facts']['goals drawn']}, sha256 {results.manifest}")
    print(f"report: {out / 'report.html'}")
