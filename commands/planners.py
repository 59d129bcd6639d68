"""`forearm bench planners`: planners on problems whose optimum is known, in under a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..episodes.progress import progress_bar
from ..evaluation.planners import gap_table, measure_gap
from ..evaluation.plots import gap_curves
from ..evaluation.settings import ProblemSettings
from ..files import write_json
from ..folders import run_folder
from ..machine import machine
from ..memory import in_memory, of
from ..presets import suited
from ..settings import write_settings
from .common import command_line

SETTINGS = ProblemSettings


def run(given: Mapping[str, Any]) -> None:
    settings = suited(ProblemSettings, given)
    device = settings.use()
    with run_folder(settings.out, "planners", "gaps") as out, in_memory(of(settings, "seeds")):
        write_settings(settings, out)
        pairs = [(problem, planner) for problem in settings.problems for planner in settings.planners]
        gaps = []
        with progress_bar("bench planners", len(pairs), "rows") as advance:
            for problem, planner in pairs:
                gaps.append(measure_gap(problem, planner, settings.seeds, device))
                advance(1)
        told = {"command": command_line("bench planners", settings), "facts": machine() | {"device": str(device)}}
        write_json(out / "results.json", {"schema": 1, **told, "rows": [asdict(gap) for gap in gaps]})
        gap_curves(gaps, out / "gaps.png")
    print(gap_table(gaps))
    print(f"results: {out / 'results.json'}, {out / 'gaps.png'}")
