"""Closed-loop episodes of every problem of a manifest, in lockstep, so that B problems are planned in one batch.

One simulation serves all problems: each problem is a row of simulator state, loaded, stepped and saved in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..envs import Observation, World, action_size
from ..errors import SimulationError
from .goals import GoalManifest

Batch = dict[str, np.ndarray]
"""Observations of B problems: each part (B, …)."""


class Controller(Protocol):
    """What chooses actions for B problems at once."""

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        """A new run, with the goals' observations; all randomness comes from the seed."""
        ...

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        """Actions (B, K, A) to execute next, of observations and simulator states (B, F)."""
        ...


@dataclass(frozen=True)
class Episodes:
    """What happened. `distance` (B, budget) metres after each step, infinite from where a simulation diverged, whose
    state is the last sound one from then on; `states` (B, budget + 1, F), to render later;
    `plans` (budget,) the call of the controller that chose each step's action; `act_seconds` one a call, for all
    problems together; `evaluations` energies evaluated a problem, one a call; `energies` (B,) one a call, of the plans,
    where there were any."""

    manifest: GoalManifest
    distance: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    plans: np.ndarray
    act_seconds: list[float]
    evaluations: list[float]
    energies: list[np.ndarray] = field(default_factory=list)

    @property
    def success(self) -> np.ndarray:
        """(B,) the goal holds at each of the last steps."""
        return np.all(self.distance[:, -self.manifest.hold :] < self.manifest.tolerance, axis=1)

    @property
    def diverged(self) -> np.ndarray:
        """(B,) the simulation did not go on to the end: a failure."""
        return np.isinf(self.distance[:, -1])

    @property
    def reached(self) -> np.ndarray:
        """(B,) the goal held at some step."""
        return np.any(self.distance < self.manifest.tolerance, axis=1)

    @property
    def energy_held(self) -> float | None:
        """The median energy of the plans made while the goal held; None without any."""
        first = [int(np.argmax(self.plans == call)) for call in range(len(self.energies))]  # steps of theirs
        held = [
            energies[self.distance[:, step - 1] < self.manifest.tolerance]
            for step, energies in zip(first, self.energies, strict=True)
            if step
        ]
        found = np.concatenate(held) if held else np.empty(0)
        return float(np.median(found)) if found.size else None

    @property
    def mean_evaluations(self) -> int:
        """Energies evaluated for a plan, on average."""
        return round(float(np.mean(self.evaluations)))

    @classmethod
    def join(cls, manifest: GoalManifest, parts: Sequence[Episodes]) -> Episodes:
        """Episodes that were run one after the other, over the same number of calls each."""
        return cls(
            manifest,
            np.concatenate([part.distance for part in parts]),
            np.concatenate([part.states for part in parts]),
            np.concatenate([part.actions for part in parts]),
            parts[0].plans,
            [sum(call) for call in zip(*(part.act_seconds for part in parts), strict=True)],
            [float(np.mean(call)) for call in zip(*(part.evaluations for part in parts), strict=True)],
            [np.concatenate(call) for call in zip(*(part.energies for part in parts), strict=True)],
        )


def stack(observations: list[Observation]) -> Batch:
    return {part: np.stack([observation[part] for observation in observations]) for part in observations[0]}


def observe_goals(env: World, manifest: GoalManifest) -> Batch:
    goals = []
    for state in manifest.goal:
        env.set_goal(state)
        goals.append(env.goal_observation())
    return stack(goals)


def run_episodes(
    env: World,
    manifest: GoalManifest,
    controller: Controller,
    seed: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> Episodes:
    """Runs every problem of a manifest to its budget; `advance(steps)` is told of progress in environment steps.

    Raises:
        ValueError: for actions that are not finite, outside [-1, 1], or of another shape.
    """
    problems, budget = len(manifest), manifest.budget
    states = np.empty((problems, budget + 1, manifest.start.shape[1]))
    states[:, 0] = manifest.start
    distance = np.full((problems, budget), np.inf)
    lost = np.zeros(problems, bool)
    executed = np.empty((problems, budget, action_size(env)))
    plans = np.empty(budget, int)
    act_seconds: list[float] = []
    evaluations: list[float] = []
    controller.begin(manifest, observe_goals(env, manifest), seed)
    step = 0
    while step < budget:
        observations = []
        for state in states[:, step]:
            env.load_state(state)
            observations.append(env.observe())
        begun = time.perf_counter()
        actions = controller.act(stack(observations), states[:, step])[:, : budget - step]
        act_seconds.append(time.perf_counter() - begun)
        evaluations.append(getattr(controller, "evaluations", 0))
        count = actions.shape[1]
        if actions.shape != (problems, count, *executed.shape[2:]) or count < 1:
            raise ValueError(f"a controller gave actions of shape {actions.shape}, not (B, K, A)")
        if not (np.abs(actions) <= 1.0).all():
            raise ValueError("a controller gave an action that is NaN or outside [-1, 1]")
        for problem in np.flatnonzero(~lost):
            env.load_state(states[problem, step])
            env.set_goal(manifest.goal[problem])
            for k in range(count):
                try:
                    env.advance(actions[problem, k])
                except SimulationError:
                    lost[problem] = True
                    states[problem, step + k + 1 :] = states[problem, step + k]
                    break
                distance[problem, step + k] = env.distance()
                states[problem, step + k + 1] = env.save_state()
        executed[:, step : step + count] = actions
        plans[step : step + count] = len(act_seconds) - 1
        step += count
        advance(count * problems)
    energies: list[np.ndarray] = list(getattr(controller, "energies", ()))
    return Episodes(manifest, distance, states, executed, plans, act_seconds, evaluations, energies)
