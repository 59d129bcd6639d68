"""Who can be put on a manifest: planners on a learned model or on the simulator, the expert, and the floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..envs import ArmEnv, Policy, World, as_arm, make_policy
from ..envs.arm import ACTION_SCALE
from ..errors import UserError
from ..models.precision import use_bf16
from ..models.world_model import WorldModel
from ..planner import ActionSpace, Agent, ControlEnergy, Energy, KeepOut, LatentEnergy, Planner, Status
from ..planner.energy import Sum, weighted
from ..planner.simulator import SimulatorEnergy
from .closed_loop import Batch
from .goals import GoalManifest

SEEDS = 1_000_000
"""From one run's seed to the next one's: problem b gets `seed * SEEDS + b`, however many are beside it."""


class Zero:
    """The arm stands still: `size` actions A of zero."""

    def __init__(self, size: int) -> None:
        self.size = size

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        del goals, seed
        self._problems = len(manifest)

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del observations, states
        return np.zeros((self._problems, 1, self.size))


class Random:
    """Uniform actions (A,), each held for a chunk like a planner's."""

    def __init__(self, size: int, chunk: int) -> None:
        self.size = size
        self.chunk = chunk

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        del goals
        self._rngs = [np.random.default_rng(seed * SEEDS + b) for b in range(len(manifest))]

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del observations, states
        return np.stack([rng.uniform(-1.0, 1.0, (1, self.size)) for rng in self._rngs]).repeat(self.chunk, axis=1)


class Expert:
    """The environment's scripted expert, which sees the simulator. UserError where it has none."""

    def __init__(self, env: World) -> None:
        if "expert" not in env.policies:
            raise UserError(f"planners: env={env.name} has no expert; it has the policies {', '.join(env.policies)}")
        self.env = env

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        del goals
        self._goals = manifest.goal
        children = np.random.SeedSequence(seed).spawn(len(manifest))
        self._policies: list[Policy] = [make_policy("expert", self.env, np.random.default_rng(s)) for s in children]

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del observations
        actions = []
        for state, goal, policy in zip(states, self._goals, self._policies, strict=True):
            self.env.load_state(state)
            self.env.set_goal(goal)
            actions.append(np.clip(policy.act(), -1.0, 1.0))
        return np.stack(actions)[:, None]


METRICS: dict[str, Callable[[WorldModel], torch.Tensor | None]] = {
    "slow": lambda model: model.metric,
    "plain": lambda model: None,
}
"""How an energy weighs the directions of latent space, by name."""


@dataclass(frozen=True)
class Box:
    """A box in the world: corners (3,) in metres, written `x,y,z..x,y,z`."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def parse(cls, text: str) -> Box:
        """Raises ValueError for what is no box."""
        low, high = (np.array([float(number) for number in corner.split(",")]) for corner in text.split(".."))
        if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
            raise ValueError(f"{text} is no box")
        return cls(low, high)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether points (…, 3) lie inside."""
        return np.all((points > self.low) & (points < self.high), axis=-1)


def commanded_tips(command: torch.Tensor, env: ArmEnv, actions: torch.Tensor) -> torch.Tensor:
    """Where the tip is sent, (B, N, T, 3) metres, by actions (B, N, T, A) when its command was (B, 3)."""
    low, high = (torch.from_numpy(corner[:3]).to(actions) for corner in (env.arm.workspace.low, env.arm.workspace.high))
    moves = actions[..., :3] * torch.from_numpy(ACTION_SCALE[:3]).to(actions)
    position, path = command[:, None].to(actions), []
    for move in moves.unbind(2):
        position = (position + move).clamp(low, high)
        path.append(position)
    return torch.stack(path, 2)


class Imagination:
    """A planner on a learned world model: encode, imagine, compare with the goal's embedding.

    `energy` has what `LatentEnergy` takes by name, `metric` as a name in `METRICS`, and the
    `weights` of the terms `goal`, `control` and `keep_out`, the last a box that the commanded tip is charged for every
    metre and step inside of. `misses` counts plans that came after the `deadline`, in seconds.
    """

    def __init__(
        self,
        env: World,
        model: WorldModel,
        planner: Planner,
        energy: Mapping[str, Any],
        device: str = "cpu",
        precision: str = "fp32",
        execute_steps: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self.model = model
        self.model.bf16 = use_bf16(precision, device)
        self.planner = planner.to(device)
        self.energy = dict(energy)
        self.weights = self.energy.pop("weights", {"goal": 1.0})
        box = self.energy.pop("keep_out", None)
        self.keep_out = None if box is None else Box.parse(box)
        self.arm = None if box is None else as_arm(env, f"energy.keep_out={box}")
        self.energy["metric"] = METRICS[self.energy.get("metric", "slow")](model)
        self.device = device
        self.execute_steps = execute_steps
        self.deadline = deadline
        self.energies: list[np.ndarray] = []
        self.evaluations = 0
        self.misses = 0

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        with torch.no_grad():
            self._goal = self.model.encode(self._tensors(goals))
        self.agent = Agent(
            self.planner,
            self._make_energy,
            len(manifest),
            seeds=seed * SEEDS,
            execute_steps=self.execute_steps,
            deadline=self.deadline,
        )
        self.energies = []

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del states
        if self.keep_out is not None:
            self._command = torch.from_numpy(observations["proprio"][:, -3:]).to(self.device)
        actions = self.agent.act(self._tensors(observations)).cpu().numpy()
        assert self.agent.last_plan is not None
        self.misses += self.agent.last_plan.timing is Status.LATE
        self.energies.append(self.agent.last_plan.energy.cpu().numpy())
        self.evaluations = self.agent.last_plan.stats.evaluations
        return actions

    def _make_energy(self, observation: dict[str, torch.Tensor]) -> Sum:
        goal = LatentEnergy(self.model, self.model.encode(observation), self._goal, **self.energy)
        terms: dict[str, Energy] = {"goal": goal, "control": ControlEnergy()}
        if self.keep_out is not None and self.arm is not None:
            low, high = (torch.from_numpy(corner).to(goal.z) for corner in (self.keep_out.low, self.keep_out.high))
            terms["keep_out"] = KeepOut(partial(commanded_tips, self._command, self.arm), False, low, high)
        return weighted(terms, {name: weight for name, weight in self.weights.items() if weight})

    def _tensors(self, batch: Batch) -> dict[str, torch.Tensor]:
        seen = self.model.architecture.observations
        return {part: torch.from_numpy(batch[part]).to(self.device) for part in seen}


class Oracle:
    """A planner on the true simulator: the ceiling that a perfect model would reach."""

    def __init__(self, env: World, planner: Planner, energy: Mapping[str, Any]) -> None:
        self.env = as_arm(env, "planners: oracle")
        self.planner = planner
        self.energy = energy
        self.evaluations = planner.samples * planner.iterations

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        del goals
        self._goals = manifest.goal
        self.agent = Agent(self.planner, self._make_energy, len(manifest), seeds=seed * SEEDS)

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del observations
        self._states = states
        return self.agent.act({}).numpy()

    def _make_energy(self, observation: Mapping[str, torch.Tensor]) -> SimulatorEnergy:
        del observation
        return SimulatorEnergy(self.env, self._states, self._goals, **self.energy)


def action_space(low: Any, high: Any, horizon: int, chunk: int, **settings: Any) -> ActionSpace:
    """The space of plans of `horizon` model steps of `chunk` environment steps, for bounds (A,)."""
    bounds = [torch.tensor(bound, dtype=torch.float32) for bound in (low, high)]
    return ActionSpace(low=bounds[0], high=bounds[1], steps=horizon * chunk, chunk=chunk, **settings)
