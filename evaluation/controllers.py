"""Who can be put on a manifest: planners on a learned model or on the simulator, the expert, and the floors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..envs import Policy, World, action_size, as_arm, make_policy
from ..errors import UserError
from ..models.checkpoint import Checkpoint
from ..models.precision import PRECISIONS, rollout_precision
from ..models.prior import TEMPERATURE, ActionPrior
from ..models.temporal import TemporalDistance
from ..models.world_model import WorldModel
from ..planner import (
    ENERGIES,
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
from .energies import METRICS, CommandedTips, EarlyRelease, Remembering, Unlikely
from .foresight import Foreseen
from .goals import GoalManifest
from .proposals import PriorRollouts
from .settings import EnergySettings, PlanningSettings
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


@dataclass(frozen=True)
class Learned:
    """What a planner takes of a checkpoint: a world model, and what was learned for it."""

    model: WorldModel
    prior: ActionPrior | None = None
    temporal: TemporalDistance | None = None


class LatentMPC:
    """A planner on a learned world model, as settings say: encode, imagine, compare with the goal's embedding.

    This is where a controller is put together of a checkpoint, or of what is `Learned`, and settings. The terms of the
    energy: the distance from the goal (`ENERGIES`) and `control`, together at most `clip`; `release` (`EarlyRelease`),
    `prior` (`Unlikely`), and a box to keep out of, charged for every metre and step that the commanded tip is inside.

    `backend` is what ran the last plan. `misses` counts plans that came after the deadline, `statuses` plans of each
    `Status`, a problem each.

    Raises:
        UserError: naming a setting that cannot be, or what it takes and the model lacks.
    """

    def __init__(
        self,
        env: World,
        learned: Checkpoint | Learned,
        settings: PlanningSettings = PlanningSettings(),  # noqa: B008 (frozen)
        device: str | torch.device = "cpu",
    ) -> None:
        model, prior = learned.model, learned.prior
        self.settings, self.energy, self.device = settings, settings.energy, str(device)
        size = action_size(env)
        planner = settings.build([-1.0] * size, [1.0] * size, model.chunk)
        _check_energy(settings.energy, learned)
        self.model = model = model.in_precision(rollout_precision(settings.precision, self.device, model.width))
        if self.model.precision == "int8" and planner.first_gradient < planner.iterations:
            needs = f"{type(planner).__name__} descends gradients, and there are none"
            raise UserError(f"precision=int8: {needs}; choose one of: {', '.join(PRECISIONS)}")
        self.planner = planner.to(self.device)
        self.box = settings.energy.box
        self.arm = None if self.box is None else as_arm(env, f"energy.keep_out={settings.energy.keep_out}")
        if settings.energy.release:  # which way a gripper's action opens it, other worlds have their own ideas
            as_arm(env, f"energy.release={settings.energy.release}")
        self.metric = METRICS[settings.energy.metric](model, learned.temporal)
        asked = {"planner.prior": settings.planner.prior, "energy.prior": settings.energy.prior}
        if wanted := [key for key, value in asked.items() if value]:
            prior = require_prior(prior, wanted[0])
            if settings.energy.prior:
                _check_judge(prior, settings.energy.prior, planner)
            prior = prior.in_precision(model.precision)
        self.prior = prior
        self.hold_action = torch.from_numpy(env.hold_action).to(self.planner.space.low)
        self.control = ControlEnergy(
            neutral=torch.from_numpy(env.neutral).to(self.hold_action) if env.neutral.any() else None
        )
        self.rollouts = None
        if prior is not None and settings.planner.prior:
            space, stop = self.planner.space, settings.planner.prior_stop
            self.rollouts = PriorRollouts(model, prior, space, space.steps, stop, env.tolerance, self.hold_action)
        self.energies: list[np.ndarray] = []
        self._foreseen: list[Foreseen] | None = None
        self.evaluations = 0
        self.misses = 0
        self.statuses: Counter[Status] = Counter()
        self.backend = "eager"

    @property
    def deadline(self) -> float | None:
        """Seconds that a plan may take."""
        return self.settings.deadline or None

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self.aim(goals, len(manifest), seed)

    def aim(self, goals: Batch, batch: int, seed: int) -> None:
        """Begins an episode of B = `batch` problems, with the goals' observations."""
        with torch.no_grad():
            self._goal = self.model.encode(tensors(self.model, goals, self.device))
            if self.rollouts is not None:
                self.rollouts.begin(self._goal)
        self.agent = Agent(
            self.planner,
            self._make_energy,
            batch,
            seeds=seed * SEEDS,
            execute_steps=self.settings.execute_steps,
            deadline=self.deadline,
            make_proposals=self._make_proposals,
        )
        self.energies = []

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        if self.box is not None:
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

    @torch.no_grad()
    def energy_of(self, observations: Batch, actions: torch.Tensor) -> torch.Tensor:
        """What plans (B, N, T, A) cost from here to the goals, (B, N)."""
        return self._make_energy(tensors(self.model, observations, self.device))(actions.to(self._goal))

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
        e, self._z = self.energy, self.model.encode(observation)
        model = Remembering(self.model) if e.release or e.prior else self.model
        if e.name == "latent":
            goal: Energy = LatentEnergy(model, self._z, self._goal, **e.latent, metric=self.metric)
        else:
            goal = ENERGIES[e.name](model, self._z, self._goal, **e.options)
        ends: dict[str, tuple[float, Energy]] = {"goal": (1.0, goal), "control": (e.control, self.control)}
        rest: dict[str, tuple[float, Energy]] = {}
        if self.model.readout is not None:
            rest["release"] = e.release, EarlyRelease(model, self.model.readout, self._z, self.model.chunk)
            if self.prior is not None:
                told = self.model.readout, self._z, self._goal, self.model.chunk
                rest["prior"] = e.prior, Unlikely(model, self.prior, *told)
        if self.box is not None and self.arm is not None:
            low, high = (torch.from_numpy(corner).to(self._z) for corner in (self.box.low, self.box.high))
            box = KeepOut(CommandedTips.of(self.arm, self._command.to(self._z)), False, low, high)
            rest["keep_out"] = e.keep_out_weight, box
        if e.clip == math.inf:
            return _added(ends | rest)
        return Clipped(_added(ends), e.clip) + _added(rest)

    def _make_proposals(self, observation: dict[str, torch.Tensor]) -> list[Proposal]:
        del observation  # encoded already, for the energy
        proposals = []
        if self.rollouts is not None:
            self.rollouts.observe(self._z)
            proposals.append(Proposal(self.rollouts, self.settings.planner.prior))
        if self.settings.planner.hold:
            proposals.append(Proposal(self._keep_still, 1 / self.planner.samples))
        return proposals

    def _keep_still(self, state: PlanState, count: int) -> torch.Tensor:
        return self.hold_action.expand(len(state.seeds), count, self.planner.space.steps, -1)


def _added(terms: Mapping[str, tuple[float, Energy]]) -> Term:
    weights = {name: weight for name, (weight, _) in terms.items() if weight}
    return weighted({name: term for name, (_, term) in terms.items()}, weights)


def require_prior(prior: ActionPrior | None, key: str) -> ActionPrior:
    """A prior. UserError, naming the key that asks for it, where there is none."""
    if prior is None:
        raise UserError(f"{key}: the checkpoint has no action prior; `forearm train prior.steps=…` learns one")
    return prior


def _check_judge(prior: ActionPrior, weight: float, planner: Planner) -> None:
    """UserError where a prior cannot tell how unlikely a planner's plans are."""
    steps, length = planner.space.steps, prior.architecture.segment
    if steps < length:
        raise UserError(
            f"energy.prior={weight}: plans of {steps} steps are too short to judge, for the checkpoint's prior "
            f"does {length} at a time; raise planner.horizon"
        )
    if not prior.architecture.typical:
        raise UserError(
            f"energy.prior={weight}: the checkpoint's prior does not know what is usual; "
            "`forearm train prior.steps=…` learns one that does"
        )


def check_members(members: int, energy: EnergySettings) -> None:
    """UserError where an energy tells members apart of which there is one."""
    for key, without in {"disagreement": 0.0, "ensemble": "mean"}.items():
        if members == 1 and (value := getattr(energy, key)) != without:
            raise UserError(
                f"energy.{key}={value}: the model has one member; `forearm train model.members=…` trains "
                f"several, or leave it {without}"
            )


def _check_energy(energy: EnergySettings, learned: Checkpoint | Learned) -> None:
    """UserError where a model lacks what an energy compares."""
    check_members(learned.model.members, energy)
    if learned.model.readout is not None:
        return
    if energy.metric == "object":
        raise UserError("energy.metric=object: the checkpoint reads no positions; train one anew, or choose slow")
    if energy.release:
        raise UserError(
            f"energy.release={energy.release}: the checkpoint reads no positions; train one anew, or leave it 0"
        )


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
