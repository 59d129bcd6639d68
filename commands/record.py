"""`forearm record`: episodes of an arm into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict
from ..errors import UserError
from .bench import own_imagination
from .common import fits_world, flat, load_checkpoint, make_env, told_next

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

    from ..envs import World
    from ..evaluation.policies import PlannerPolicy
    from ..models.checkpoint import Checkpoint

PLANNER = "planner"
"""The policy that is no environment's own: a planner on a learned model."""


def run(config: DictConfig) -> None:
    from ..episodes import RecordRequest, record

    env = make_env(config)  # whatever keeps it from being made is said before anything is written
    acts: dict[str, Any] = {}
    policy_config: dict[str, Any] = {}
    if config.policy == PLANNER:
        policies = PlannerPolicies.checked(config, env)
        acts, policy_config = {"make_policy": policies}, policies.about
    elif config.policy not in env.policies:
        raise UserError(f"policy={config.policy} is unknown; choose one of: {', '.join([*env.policies, PLANNER])}")
    elif config.checkpoint:
        raise UserError(f"checkpoint={config.checkpoint}: policy={config.policy} needs none; it is policy={PLANNER}'s")
    env.close()
    out = Path(config.out or f"data/{config.env.name}-{config.obs}-{config.policy}")
    request = RecordRequest(
        env=config.env.name,
        policy=config.policy,
        seed=config.seed,
        episodes=config.episodes,
        length=config.length,
        config=env.config,
        policy_config=policy_config,
    )
    manifest = record(request, out, workers=config.workers, progress=True, **acts)
    print(f"{manifest.episodes} episodes, {manifest.frames} frames in {out}")
    print(told_next(config.env.name, "train", f"data={out}", f"obs={config.obs}"))


@dataclass(frozen=True)
class PlannerPolicies:
    """Makes planner policies as a config says, in whichever process records: each loads the checkpoint for itself, and
    makes sure that it is the one with the hash `sha256`. `precision` is what `auto` comes to."""

    config: DictConfig
    sha256: str
    precision: str = "auto"

    @classmethod
    def checked(cls, config: DictConfig, env: World) -> PlannerPolicies:
        """Raises UserError for whatever would keep a policy from being made."""
        import numpy as np
        import torch

        if not 0 <= config.noise <= 1:
            raise UserError(f"noise={config.noise}: must lie in 0 … 1; it is a share of the steps")
        from ..models.precision import rollout_precision

        checkpoint = load_checkpoint(config, config.checkpoint, torch.device("cpu"))
        fits_world(config, config.checkpoint, checkpoint, env)
        policies = cls(config, checkpoint.sha256)
        policies(PLANNER, env, np.random.default_rng(0))
        precision = rollout_precision(config.precision, "cpu", policies._checkpoint.model.width)
        return cls(config, policies.sha256, precision)  # has not loaded anything itself, to be sent to others

    @property
    def about(self) -> dict[str, Any]:
        """All that decides what is planned, by key."""
        config = self.config
        about = {"checkpoint": self.sha256, "noise": config.noise, "execute_steps": config.execute_steps}
        groups = {"planner": as_dict(config.planner), "energy": as_dict(config.energy)}
        return {**about, "precision": self.precision, **flat(groups)}

    def __call__(self, name: str, env: World, rng: np.random.Generator) -> PlannerPolicy:
        from ..evaluation.policies import PlannerPolicy

        device = self._checkpoint.model.metric.device
        return PlannerPolicy(env, own_imagination(self.config, env, self._checkpoint, device), rng, self.config.noise)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        import torch

        torch.set_num_threads(1)  # a worker is one core, and sums must not depend on how many there are
        checkpoint = load_checkpoint(self.config, self.config.checkpoint, torch.device("cpu"))
        if checkpoint.sha256 != self.sha256:
            raise UserError(f"checkpoint={self.config.checkpoint}: has changed since the recording began")
        return checkpoint
