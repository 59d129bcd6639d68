"""Planners side by side on one manifest: rows of success and plan time, and the episodes behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..envs import ArmEnv
from .closed_loop import Controller, Episodes, run_episodes
from .goals import GoalManifest
from .results import Kind, Row

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """One planner of a bench.

    `episodes` limits it to the first goals of the manifest (None: all); an entry that is not `timed` alone reports its
    time a call over its problems instead; `labels` go into its rows.
    """

    name: str
    kind: Kind
    controller: Controller
    seeds: Sequence[int]
    episodes: int | None = None
    timed: bool = True
    labels: dict[str, Any] = field(default_factory=dict)

    def manifest(self, manifest: GoalManifest) -> GoalManifest:
        return manifest if self.episodes is None else manifest.first(self.episodes)

    def steps(self, manifest: GoalManifest) -> int:
        """Environment steps that running it takes."""
        once = len(self.manifest(manifest)) * manifest.budget
        return len(self.seeds) * once + (manifest.budget if self.timed else 0)


def run_entry(
    env: ArmEnv, manifest: GoalManifest, obs: str, entry: Entry, advance: Advance = lambda steps: None
) -> tuple[list[Row], Episodes]:
    """Runs an entry with each of its seeds; gives a row a seed and the first seed's episodes.

    Plans are timed on one problem alone, which is what a robot waits for, in a run of their own.
    """
    goals = entry.manifest(manifest)
    runs = [run_episodes(env, goals, entry.controller, seed, advance) for seed in entry.seeds]
    evaluations = getattr(entry.controller, "evaluations", 0)
    alone: list[float] = []
    if entry.timed:
        alone = run_episodes(env, goals.first(1), entry.controller, entry.seeds[0], advance).act_seconds
    rows = []
    for seed, episodes in zip(entry.seeds, runs, strict=True):
        together = 1e3 * np.array(episodes.act_seconds) / len(goals)
        row = Row.from_episodes(
            env=env.name,
            obs=obs,
            planner=entry.name,
            seed=seed,
            success=episodes.success,
            reached=episodes.reached,
            plan_ms=1e3 * np.array(alone) if alone else together,
            evaluations=evaluations,
            final_distance_cm=100 * episodes.distance[:, -1],
            kind=entry.kind,
            plan_ms_batched=float(np.median(together)),
            **entry.labels,
        )
        rows.append(row)
    return rows, runs[0]
