"""A checkpoint as the model of one robot: it observes, imagines and plans, one call at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from ..envs import make_world
from ..errors import UserError
from ..models.checkpoint import ENVS, Checkpoint
from ..planner import Status
from ..presets import suited
from ..settings import subset
from .closed_loop import Batch
from .controllers import LatentMPC
from .settings import PlanningSettings

Observed = Mapping[str, np.ndarray] | np.ndarray
"""What one robot observes, by part as `World.observe` gives it; for a model that sees one part, that alone will do."""


@dataclass(frozen=True)
class RobotPlan:
    """A plan for one robot.

    Attributes:
        actions: what it means to do, (T, A), in the environment's own units.
        execute: the first of these, (K', A): execute all of them, observe, and plan again.
        energy: how far from the goal it is imagined to stay.
        status: what became of the plan, with what to do about it.
        seconds: that it took, encoding included.
    """

    actions: np.ndarray
    execute: np.ndarray
    energy: float
    status: Status
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Chosen(PlanningSettings):
    """With what presets choose by."""

    obs: str


class Model:
    """A trained world model, and the planner on it that `planning` describes.

    Args:
        checkpoint: what was learned.
        folder: where it lies.
        device: where it computes.
        settings: of planning, as `PlanningSettings` has them; the rest is as presets have it.
    """

    def __init__(
        self, checkpoint: Checkpoint, folder: Path | None = None, device: str | torch.device = "cpu", **settings: Any
    ) -> None:
        self.checkpoint, self.folder, self.device = checkpoint, folder, torch.device(device)
        self.env, self.obs = checkpoint.env.split(ENVS)[0], checkpoint.obs
        self._given = settings
        self.planning = self._settings(settings)
        self.reset()

    def __repr__(self) -> str:
        return f"Model({self.checkpoint.env}, {self.obs}, {self.folder or 'nowhere'}; {self.checkpoint.told()})"

    @property
    def world_model(self) -> torch.nn.Module:
        """The network itself."""
        return self.checkpoint.model

    def reset(self, seed: int = 0) -> None:
        """Forgets plan and goal: the next plan is the first of an episode, with a seed of its own."""
        self._controller: LatentMPC | None = None
        self._goal: Batch = {}
        self.seed = seed

    @torch.no_grad()
    def encode(self, observation: Observed) -> Tensor:
        """The embedding (D,) of an observation."""
        return self._encode(self._batch(observation))[0]

    @torch.no_grad()
    def imagine(self, observation: Observed, actions: np.ndarray | Tensor) -> Tensor:
        """The embeddings (N, H, D) that follow actions (N, T, A), one for each K of the T steps; of a model of several
        members, (E, N, H, D)."""
        z = self._encode(self._batch(observation))
        future = self.checkpoint.model.rollout(z, self._actions(actions))
        return future.squeeze(-4)

    def energy(self, observation: Observed, goal: Observed, actions: np.ndarray | Tensor) -> np.ndarray:
        """What plans (N, T, A) cost from here to the goal, (N,), by the energy that `plan` minimises."""
        seen, controller = self._batch(observation), self._aimed(self._batch(goal, "goal"))
        return controller.energy_of(seen, self._actions(actions))[0].cpu().numpy()

    def plan(self, observation: Observed, goal: Observed, **settings: Any) -> RobotPlan:
        """The plan from here to the goal, warm-started from the last one if the goal is the same.

        It counts on `RobotPlan.execute` having been executed between two calls. `settings` change those of planning
        from now on, and begin anew.
        """
        if settings:
            given = {**self._given, **settings}
            self.planning, self._given = self._settings(given), given
            self.reset(self.seed)
        controller = self._aimed(self._batch(goal, "goal"))
        executed = controller.act(self._batch(observation), np.empty((1, 0)))[0]
        plan = controller.agent.last_plan
        assert plan is not None
        return RobotPlan(
            plan.actions[0].cpu().numpy(),
            executed,
            float(plan.energy[0]),
            plan.status[0],
            controller.agent.plan_seconds[-1],
        )

    def landscape(
        self, observation: Observed, goal: Observed, path: str | Path, axes: tuple[int, int] = (0, 1), count: int = 25
    ) -> Path:
        """Draws the energy of the plan from here to the goal as a PNG, over two dimensions of what it does first: the
        actions of its first model step take each of `count` x `count` values, and the rest of it stays."""
        from .plots import energy_landscape  # matplotlib takes long to import

        size = self.checkpoint.model.architecture.action_size
        if axes[0] == axes[1] or not all(0 <= axis < size for axis in axes):
            raise UserError(f"axes={axes}: must be two different ones of 0 … {size - 1}, an action's dimensions")
        if count < 2:
            raise UserError(f"count={count}: must be at least 2")
        plan = self.plan(observation, goal)
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, count)] * 2, indexing="ij"), -1).reshape(-1, 2)
        actions = np.repeat(plan.actions[None], len(grid), 0)
        actions[:, : self.checkpoint.model.chunk, list(axes)] = grid[:, None]
        energies = self.energy(observation, goal, actions).reshape(count, count)
        names, (x, y) = tuple(f"action {axis}" for axis in axes), axes
        chosen = float(plan.actions[0, x]), float(plan.actions[0, y])
        return energy_landscape(energies, (-1, -1), (1, 1), path, names=(names[0], names[1]), plan=chosen)

    def _aimed(self, goal: Batch) -> LatentMPC:
        """The controller, aimed at a goal."""
        same = self._goal.keys() == goal.keys() and all(np.array_equal(self._goal[key], goal[key]) for key in goal)
        if self._controller is None:
            self._controller = LatentMPC(self._world(), self.checkpoint, self.planning, self.device)
            same = False
        if not same:
            self._controller.aim(goal, 1, self.seed)
            self._goal = {key: value.copy() for key, value in goal.items()}
        return self._controller

    def _settings(self, given: Mapping[str, Any]) -> PlanningSettings:
        planning = subset(PlanningSettings, suited(_Chosen, {"obs": self.obs, **given}, self.env))
        size = self.checkpoint.model.architecture.action_size
        planning.build([-1.0] * size, [1.0] * size, self.checkpoint.model.chunk)  # raises where it cannot be
        return planning

    def _world(self) -> Any:
        """What planning asks of the world: of one that is not known here, what the checkpoint tells."""
        config = {key: value for key, value in self.checkpoint.env_config.items() if key != "pixels"}
        try:
            return make_world(self.env, pixels=False, **config)
        except UserError:
            return Elsewhere(self.checkpoint)

    def _batch(self, observation: Observed, what: str = "observation") -> Batch:
        """One observation as a batch, of the parts that the model sees and whatever else there is.

        Raises:
            UserError: naming the part that is missing, or both shapes.
        """
        known = self.checkpoint.model.architecture.observations
        if not isinstance(observation, Mapping):
            if len(known) != 1:
                raise UserError(f"{what}: give its parts by name, the model sees {' and '.join(known)}")
            observation = {next(iter(known)): np.asarray(observation)}
        for part, shape in known.items():
            if part not in observation:
                raise UserError(f"{what}: has no {part}; the model sees {' and '.join(known)}")
            if np.shape(observation[part]) != tuple(shape):
                raise UserError(f"{what}: {part} is {np.shape(observation[part])}, the model sees {tuple(shape)}")
        return {part: np.asarray(value)[None] for part, value in observation.items()}

    def _encode(self, batch: Batch) -> Tensor:
        parts = self.checkpoint.model.architecture.observations
        return self.checkpoint.model.encode({part: torch.from_numpy(batch[part]).to(self.device) for part in parts})

    def _actions(self, actions: np.ndarray | Tensor) -> Tensor:
        """Actions (N, T, A), or (T, A), as (1, N, T, A)."""
        given = torch.as_tensor(actions, dtype=torch.float32, device=self.device)
        size, chunk = self.checkpoint.model.architecture.action_size, self.checkpoint.model.chunk
        shape = tuple(given.shape)
        if given.dim() not in (2, 3) or shape[-1] != size or not shape[-2] or shape[-2] % chunk:
            raise UserError(f"actions: are {shape}, must be (N, T, {size}) or (T, {size}), T a multiple of {chunk}")
        return given[(None,) * (4 - given.dim())]


class Elsewhere:
    """A world that is not here, a robot's, as far as a checkpoint tells of it: actions of zero hold it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        size, facts = checkpoint.model.architecture.action_size, checkpoint.world(checkpoint.env)
        self.name = checkpoint.env
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.hold_action = self.neutral = np.zeros(size)
        self.tolerance = facts.tolerance or 0.0
