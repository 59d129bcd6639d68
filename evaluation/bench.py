"""Planners side by side on one manifest: rows of success and plan time, and the episodes behind them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..envs import ArmEnv, World, as_arm
from ..envs.tasks import Grasp
from ..errors import UserError
from ..planner import Status
from .clear import clear_outcomes
from .closed_loop import Controller, Episodes, run_episodes
from .controllers import LatentMPC
from .energies import Box
from .foresight import foresight
from .goals import GoalManifest
from .handling import drops
from .results import Kind, Row

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """One planner of a bench.

    `episodes` limits it to the first goals of the manifest (None: all); an entry that is not `timed` alone reports its
    time a call over its problems instead; one that meets its goals `alone`, one after the other, is timed as it goes:
    it plans under a clock that must not be shared, or not all its plans take as long; `labels` go into its rows.
    """

    name: str
    kind: Kind
    controller: Controller
    seeds: Sequence[int]
    episodes: int | None = None
    timed: bool = True
    alone: bool = False
    labels: dict[str, Any] = field(default_factory=dict)

    def manifest(self, manifest: GoalManifest) -> GoalManifest:
        return manifest if self.episodes is None else manifest.first(self.episodes)

    def steps(self, manifest: GoalManifest) -> int:
        """Environment steps that running it takes."""
        once = len(self.manifest(manifest)) * manifest.budget
        return len(self.seeds) * once + (manifest.budget if self.timed and not self.alone else 0)


def run_entry(
    env: World,
    manifest: GoalManifest,
    obs: str,
    entry: Entry,
    advance: Advance = lambda steps: None,
    keep_out: Box | None = None,
) -> tuple[list[Row], Episodes | None]:
    """Runs an entry with each of its seeds; gives a row a seed and the episodes of the first that could be run.

    A seed that cannot be run gives a row that says why, and the others still run. Plans are timed on one problem alone,
    which is what a robot waits for, in a run of their own with the first seed. The steps that the tip spent in the box
    `keep_out` are counted, for whoever was told of it or not.
    """
    rows: list[Row] = []
    shown = None
    timed = not (entry.timed and not entry.alone)
    for seed in entry.seeds:
        try:
            row, episodes = _run_seed(env, manifest, obs, entry, seed, advance, keep_out, not timed)
        except Exception as error:  # whatever a planner, a model or an energy raises: the rest of the bench goes on
            about = str(error)
            if not isinstance(error, UserError):
                traceback.print_exc()
                about = f"{type(error).__name__}: {about}"
            told = {"env": env.name, "obs": obs, "planner": entry.name, "seed": seed, "kind": entry.kind}
            rows.append(Row.failed(about, **told, **entry.labels))
            continue
        timed = True
        rows.append(row)
        shown = shown or episodes
    return rows, shown


def _run_seed(
    env: World,
    manifest: GoalManifest,
    obs: str,
    entry: Entry,
    seed: int,
    advance: Advance,
    keep_out: Box | None,
    time_alone: bool,
) -> tuple[Row, Episodes]:
    goals = entry.manifest(manifest)
    imagining = entry.controller if isinstance(entry.controller, LatentMPC) else None
    watched = None if entry.alone else imagining
    if entry.alone and seed == entry.seeds[0]:
        warm_up(env, goals, entry.controller)
    before = getattr(entry.controller, "misses", 0)
    if imagining is not None:
        imagining.statuses.clear()
    if watched is not None:
        watched.watch()
    episodes, seconds = _run(env, goals, entry, seed, advance)
    missed = getattr(entry.controller, "misses", 0) - before
    statuses = None if imagining is None else {status.name.lower(): n for status, n in imagining.statuses.items()}
    foreseen = watched.unwatch() if watched is not None else []
    if statuses is not None and set(statuses) == {Status.NO_FINITE_ENERGY.name.lower()}:
        raise ValueError(f"none of its plans had an energy. {Status.NO_FINITE_ENERGY.value}")
    ahead = foresight(env, foreseen, watched.model.chunk) if watched is not None and foreseen else None
    ahead = ahead if ahead and ahead.plans else None
    if time_alone:
        seconds = run_episodes(env, goals.first(1), entry.controller, seed, advance).act_seconds
    grasping = env if isinstance(env, ArmEnv) and isinstance(env.task, Grasp) else None
    together = 1e3 * np.array(episodes.act_seconds) / len(goals)
    times = 1e3 * np.array(seconds)
    diverged = ~np.isfinite(episodes.distance[:, -1])
    row = Row.from_episodes(
        env=env.name,
        obs=obs,
        planner=entry.name,
        seed=seed,
        success=episodes.success,
        reached=episodes.reached,
        plan_ms=times if seconds or entry.timed else together,
        evaluations=episodes.mean_evaluations,
        final_distance_cm=100 * episodes.distance[:, -1],
        kind=entry.kind,
        plan_ms_batched=None if entry.alone else float(np.median(together)),
        plan_ms_mean=float(np.mean(times)) if entry.alone else None,
        misses=None if imagining is None or imagining.deadline is None else missed,
        by_task=success_by_task(goals, episodes),
        diverged=int(episodes.diverged.sum()) or None,
        drops=None if grasping is None else dropped(grasping, episodes),
        energy_held=None if imagining is None or imagining.planner.event_triggered else episodes.energy_held,
        plan_error_cm=ahead.error_cm if ahead else None,
        phantoms=ahead.phantoms if ahead and grasping is not None else None,
        violations=None if keep_out is None else int(keep_out.contains(tips(env, episodes)).sum()),
        statuses=statuses,
        backend=None if imagining is None else _ran(imagining),
        outcomes={"diverged": diverged, **clear_outcomes(env, episodes)},
        **entry.labels,
    )
    return row, episodes


def _ran(imagining: LatentMPC) -> str:
    """What ran its plans, and what should have."""
    ran, asked = imagining.backend, imagining.planner.backend
    return f"eager, not {asked}" if ran == "eager" and asked not in ("auto", "eager") else ran


def warm_up(env: World, goals: GoalManifest, controller: Controller) -> None:
    """Has all compiled that planning for one goal alone needs, before a clock runs.

    A function is compiled at its second call, and an episode's first plan, before which nothing was executed, is
    another one than the rest.
    """
    few = replace(goals.first(1), budget=5)
    for _ in range(2):
        run_episodes(env, few, controller, 0)


def success_by_task(manifest: GoalManifest, episodes: Episodes) -> dict[str, float] | None:
    """The share of successes of each task of a manifest; None where it has none, or one alone."""
    tasks = np.array(manifest.labels)
    names = dict.fromkeys(manifest.labels)
    return {name: float(episodes.success[tasks == name].mean()) for name in names} if len(names) > 1 else None


def dropped(env: ArmEnv, episodes: Episodes) -> np.ndarray:
    """(B,) whether an object was dropped."""
    return np.array([drops(env, states).any() for states in episodes.states])


def tips(env: World, episodes: Episodes) -> np.ndarray:
    """Where the gripper's tip was after each step, (B, budget, 3) metres."""
    arm = as_arm(env, "energy.keep_out")
    found = np.empty((*episodes.distance.shape, 3))
    for index in np.ndindex(episodes.distance.shape):
        arm.load_state(episodes.states[index[0], index[1] + 1])
        found[index] = arm.tip
    return found


def _run(env: World, goals: GoalManifest, entry: Entry, seed: int, advance: Advance) -> tuple[Episodes, list[float]]:
    """Episodes of all goals, and the seconds of every plan that was made for one goal alone."""
    if not entry.alone:
        return run_episodes(env, goals, entry.controller, seed, advance), []
    # Each goal has a seed of its own, as it would have in a batch.
    seeds = range(seed * len(goals), (seed + 1) * len(goals))
    singles = zip(goals.singles(), seeds, strict=True)
    parts = [run_episodes(env, goal, entry.controller, s, advance) for goal, s in singles]
    return Episodes.join(goals, parts), [seconds for part in parts for seconds in part.act_seconds]
