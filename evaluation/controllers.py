"""Who can be put on a manifest: planners on a learned model or on the simulator, the expert, and the floors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..envs import Policy, World, as_arm, make_policy
from ..errors import UserError
from ..models.precision import PRECISIONS, rollout_precision
from ..models.prior import TEMPERATURE, ActionPrior
from ..models.temporal import TemporalDistance
from ..models.world_model import WorldModel
from ..planner import (
    ActionSpace,
    Agent,
    Clipped,
    ControlEnergy,
    Energy,
    KeepOut,
    LatentEnergy,
    Planner,
    PlanState,
    Proposal,
    Status,
    Term,
    weighted,
)
from .closed_loop import Batch
from .energies import METRICS, Box, CommandedTips, EarlyRelease, Remembering, Unlikely
from .foresight import Foreseen
from .goals import GoalManifest
from .proposals import PriorRollouts, ProposalSettings
from .simulator import SimulatorEnergy

SEEDS = 1_000_000
"""From one run's seed to the next one's: problem b gets `seed * SEEDS + b`, however many are beside it."""
WATCH = 5
"""Of how many plans one is kept to be compared with what comes of it."""


class HoldController:
    """The arm stands still: an action (A,), `World.hold_action`, again and again."""

    def __init__(self, hold_action: np.ndarray) -> None:
        self.hold_action = hold_action

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        del goals, seed
        self._problems = len(manifest)

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del observations, states
        return np.tile(self.hold_action, (self._problems, 1, 1))


class RandomController:
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


class ExpertController:
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


class LatentMPC:
    """A planner on a learned world model: encode, imagine, compare with the goal's embedding.

    `energy` has what `LatentEnergy` takes by name, `metric` as a name in `METRICS`, and the `weights` of the terms
    `goal`, `control`, `release` (`EarlyRelease`), `prior` (`Unlikely`) and `keep_out`, the last a box that the
    commanded tip is charged for every metre and step inside of. `clip` is the limit of goal and control together
    (`Clipped`). Each plan begins with the `proposals`; `prior` makes its share of them, and is what the term of its
    name asks.
    `backend` is what ran the last plan. `misses` counts plans that came after the `deadline`, in seconds, `statuses`
    plans of each `Status`, a problem each. `temporal` is what the metrics of that name compare by; UserError where one
    is named and there is none.
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
        prior: ActionPrior | None = None,
        proposals: ProposalSettings = ProposalSettings(),  # noqa: B008 (frozen)
        temporal: TemporalDistance | None = None,
    ) -> None:
        self.model = model = model.in_precision(rollout_precision(precision, device, model.width))
        if self.model.precision == "int8" and planner.first_gradient < planner.iterations:
            needs = f"{type(planner).__name__} descends gradients, and there are none"
            raise UserError(f"precision=int8: {needs}; choose one of: {', '.join(PRECISIONS)}")
        self.planner = planner.to(device)
        self.energy = dict(energy)
        self.weights = self.energy.pop("weights", {"goal": 1.0})
        self.limit = self.energy.pop("clip", math.inf)
        box = self.energy.pop("keep_out", None)
        self.keep_out = None if box is None else Box.parse(box)
        self.arm = None if box is None else as_arm(env, f"energy.keep_out={box}")
        if self.weights.get("release"):  # which way a gripper's action opens it, other worlds have their own ideas
            as_arm(env, f"energy.weights.release={self.weights['release']}")
        self.energy["metric"] = METRICS[self.energy.get("metric", "slow")](model, temporal)
        self.device = device
        self.execute_steps = execute_steps
        self.deadline = deadline
        self.prior = prior = None if prior is None else prior.in_precision(model.precision)
        self.proposals = proposals
        self.hold_action = torch.from_numpy(env.hold_action).to(self.planner.space.low)
        self.control = ControlEnergy(
            neutral=torch.from_numpy(env.neutral).to(self.hold_action) if env.neutral.any() else None
        )
        self.rollouts = None
        if prior is not None and proposals.prior:
            space = self.planner.space
            self.rollouts = PriorRollouts(
                model, prior, space, space.steps, proposals.prior_stop, env.tolerance, self.hold_action
            )
        self.energies: list[np.ndarray] = []
        self._foreseen: list[Foreseen] | None = None
        self.evaluations = 0
        self.misses = 0
        self.statuses: Counter[Status] = Counter()
        self.backend = "eager"

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        with torch.no_grad():
            self._goal = self.model.encode(tensors(self.model, goals, self.device))
            if self.rollouts is not None:
                self.rollouts.begin(self._goal)
        self.agent = Agent(
            self.planner,
            self._make_energy,
            len(manifest),
            seeds=seed * SEEDS,
            execute_steps=self.execute_steps,
            deadline=self.deadline,
            make_proposals=self._make_proposals,
        )
        self.energies = []

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        if self.keep_out is not None:
            self._command = torch.from_numpy(observations["proprio"][:, -3:]).to(self.device)
        actions = self.agent.act(tensors(self.model, observations, self.device)).cpu().numpy()
        assert self.agent.last_plan is not None
        self.misses += self.agent.last_plan.timing is Status.LATE
        self.statuses.update(self.agent.last_plan.status)
        self.energies.append(self.agent.last_plan.energy.cpu().numpy())
        self.evaluations = self.agent.last_plan.stats.evaluations
        self.backend = self.agent.last_plan.stats.backend
        if self._foreseen is not None and len(self.energies) % WATCH == 1:
            self._foreseen.append(self._foresee(states, self.agent.last_plan.actions))
        return actions

    def watch(self) -> None:
        """Keeps every `WATCH`-th plan from now on, with what it imagines, if the model reads positions off that."""
        self._foreseen = None if self.model.readout is None else []

    def unwatch(self) -> list[Foreseen]:
        """The plans kept."""
        kept, self._foreseen = self._foreseen or [], None
        return kept

    @torch.no_grad()
    def _foresee(self, states: np.ndarray, actions: torch.Tensor) -> Foreseen:
        assert self.model.readout is not None
        imagined = self.model.rollout(self._z, actions[:, None])[..., 0, :, :]
        z = torch.cat((self._z[:, None].expand(*imagined.shape[:-2], 1, -1), imagined), -2)
        return Foreseen(states.copy(), actions.cpu().numpy(), self.model.readout(z)[..., :3].cpu().numpy())

    def _make_energy(self, observation: dict[str, torch.Tensor]) -> Term:
        self._z = self.model.encode(observation)
        several = any(self.weights.get(term) for term in ("release", "prior"))
        model = Remembering(self.model) if several else self.model
        goal = LatentEnergy(model, self._z, self._goal, **self.energy)
        terms: dict[str, Energy] = {"goal": goal, "control": self.control}
        if self.model.readout is not None:
            terms["release"] = EarlyRelease(model, self.model.readout, self._z, self.model.chunk)
        if self.model.readout is not None and self.prior is not None:
            rest = self.model.readout, self._z, self._goal, self.model.chunk
            terms["prior"] = Unlikely(model, self.prior, *rest)
        if self.keep_out is not None and self.arm is not None:
            low, high = (torch.from_numpy(corner).to(goal.z) for corner in (self.keep_out.low, self.keep_out.high))
            terms["keep_out"] = KeepOut(CommandedTips.of(self.arm, self._command.to(goal.z)), False, low, high)
        weights = {name: weight for name, weight in self.weights.items() if weight}
        if self.limit == math.inf:
            return weighted(terms, weights)
        ends = {name: weights.pop(name) for name in ("goal", "control") if name in weights}
        return Clipped(weighted(terms, ends), self.limit) + weighted(terms, weights)

    def _make_proposals(self, observation: dict[str, torch.Tensor]) -> list[Proposal]:
        del observation  # encoded already, for the energy
        proposals = []
        if self.rollouts is not None:
            self.rollouts.observe(self._z)
            proposals.append(Proposal(self.rollouts, self.proposals.prior))
        if self.proposals.hold:
            proposals.append(Proposal(self._keep_still, 1 / self.planner.samples))
        return proposals

    def _keep_still(self, state: PlanState, count: int) -> torch.Tensor:
        return self.hold_action.expand(len(state.seeds), count, self.planner.space.steps, -1)


def tensors(model: WorldModel, batch: Batch, device: str) -> dict[str, torch.Tensor]:
    """What a model sees of a batch of observations."""
    return {part: torch.from_numpy(batch[part]).to(device) for part in model.architecture.observations}


class PriorController:
    """The learned action prior without planning: what it would do first, done.

    It executes the first `execute_steps` of what it answers, from noise of the deviation `temperature`, and is asked
    again.
    """

    def __init__(
        self,
        model: WorldModel,
        prior: ActionPrior,
        space: ActionSpace,
        device: str = "cpu",
        execute_steps: int = 1,
        temperature: float = TEMPERATURE,
        precision: str = "fp32",
    ) -> None:
        self.model = model.in_precision(rollout_precision(precision, device, model.width))
        self.device = device
        prior = prior.in_precision(self.model.precision)
        self.rollouts = PriorRollouts(self.model, prior, space.to(device), execute_steps, temperature=temperature)

    @torch.no_grad()
    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self.rollouts.begin(self.model.encode(tensors(self.model, goals, self.device)))
        self._seeds = [seed * SEEDS + b for b in range(len(manifest))]
        self._count = 0

    @torch.no_grad()
    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del states
        self.rollouts.observe(self.model.encode(tensors(self.model, observations, self.device)))
        actions = self.rollouts.imagine(self._seeds, self._count, 1)[:, 0]
        self._count += 1
        return actions.cpu().numpy()


class SimulatorMPC:
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
