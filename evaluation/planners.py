"""Planners on problems whose optimum is known: how close they come, at what cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..planner import make_planner
from ..planner.problems import PROBLEMS
from .results import markdown

TIMED_PLANS = 20


@dataclass(frozen=True)
class Gap:
    """One planner on one problem: `gap_median` and `gap_worst` over seeds are shares of the optimal cost above it;
    milliseconds are of a plan for one problem alone, from a cold start."""

    problem: str
    planner: str
    seeds: int
    evaluations: int
    gap_median: float
    gap_worst: float
    plan_ms_p50: float
    plan_ms_p95: float


BUDGETS: dict[str, dict[str, Any]] = {
    "cem": {"samples": 256, "iterations": 12},
    "icem": {"samples": 256, "iterations": 16, "decay": 1.1},
    "mppi": {"samples": 256, "iterations": 12},
    "gradient": {"samples": 8, "iterations": 60},
    "cem_gradient": {"samples": 256, "iterations": 20, "refine": 0.8},
    "shooting": {"samples": 256, "iterations": 40, "sigma": 0.05, "sigma_min": 0.0},
}
"""What each planner searches these problems with; another one, twelve iterations."""


def measure_gap(problem: str, planner: str, seeds: int, device: torch.device) -> Gap:
    """Plans a problem with `seeds` seeds, in one batch; then times single plans."""
    with device:
        posed = PROBLEMS[problem]()
        search = make_planner(planner, posed.space, **BUDGETS.get(planner, {"iterations": 12}))
    plan = search.plan(posed.energy, search.init(seeds))
    gap = plan.energy.double().cpu() / posed.optimum - 1.0
    milliseconds = []
    for seed in range(TIMED_PLANS):
        begun = time.perf_counter()
        single = search.plan(posed.energy, search.init(1, seed))
        single.energy.cpu()  # waits for the device
        milliseconds.append(1e3 * (time.perf_counter() - begun))
    p50, p95 = torch.tensor(milliseconds[1:]).quantile(torch.tensor([0.5, 0.95])).tolist()  # the first one warms up
    return Gap(problem, planner, seeds, round(plan.stats.evaluations), float(gap.median()), float(gap.max()), p50, p95)


def gap_table(gaps: Sequence[Gap]) -> str:
    """A Markdown table."""
    header = ["problem", "planner", "gap % median / worst", "evaluations", "plan ms p50 / p95"]
    rows = [
        [
            g.problem,
            g.planner,
            f"{100 * g.gap_median:.2f} / {100 * g.gap_worst:.2f}",
            str(g.evaluations),
            f"{g.plan_ms_p50:.2f} / {g.plan_ms_p95:.2f}",
        ]
        for g in gaps
    ]
    return markdown([header, *rows], 2)
