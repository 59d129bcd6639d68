"""The entries of a bench, of its settings: floors, ceilings, and planners on each of its models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..envs import World, action_size
from ..models.checkpoint import Checkpoint
from ..models.settings import ModelSettings
from ..presets import suited
from ..settings import once
from .bench import Entry
from .controllers import (
    ExpertController,
    HoldController,
    LatentMPC,
    PriorController,
    RandomController,
    SimulatorMPC,
    require_prior,
)
from .results import TRAINING_SEED
from .settings import BenchSettings, PlanningSettings, action_space


@dataclass(frozen=True)
class _Trained:
    """What presets say of a model that is trained for an environment."""

    obs: str
    model: ModelSettings = field(default_factory=ModelSettings)


def make_entries(
    settings: BenchSettings, env: World, checkpoints: Sequence[Checkpoint], device: torch.device
) -> list[Entry]:
    """What `planners` lists, on each of the checkpoints; without any, chunks are as a training would have them.

    Raises:
        UserError: naming a setting that cannot be, or what it takes and a model lacks.
    """
    once("checkpoint", settings.checkpoint, [checkpoint.sha256 for checkpoint in checkpoints])
    seeds, size = list(settings.planner_seeds), action_size(env)
    usual = suited(_Trained, {"obs": settings.obs}, env.name).model.chunk
    chunk = checkpoints[0].model.chunk if checkpoints else usual
    models = list(zip(checkpoints, model_labels(checkpoints, settings.checkpoint), strict=True))
    tried = settings.tried
    entries: list[Entry] = []
    for name in settings.named:
        if name == "zero":
            entries.append(Entry(name, "floor", HoldController(env.hold_action), seeds[:1]))
        elif name == "random":
            entries.append(Entry(name, "floor", RandomController(size, chunk), seeds))
        elif name == "expert":
            entries.append(Entry(name, "ceiling", ExpertController(env), seeds[:1]))
        elif name == "oracle":
            planner = settings.oracle.build([-1.0] * size, [1.0] * size, chunk)
            oracle = SimulatorMPC(env, planner, {"reduce": settings.oracle.reduce})
            labels = {key: getattr(settings.oracle, key) for key in ("samples", "iterations", "horizon")}
            few = settings.oracle.episodes
            told = labels | {"energy": "simulator"}
            entries.append(Entry(name, "ceiling", oracle, seeds[:1], few, timed=False, labels=told))
        else:
            for checkpoint, labels in models:
                its = tried.get(name, [])
                entries += _learned_entries(settings, name, env, checkpoint, device, its, labels)
    return entries


def _learned_entries(
    settings: BenchSettings,
    name: str,
    env: World,
    checkpoint: Checkpoint,
    device: torch.device,
    tried: Sequence[PlanningSettings],
    labels: dict[str, Any],
) -> Iterator[Entry]:
    """The entries of a name that need a checkpoint: its prior alone, or a planner with each of its settings."""
    model, seeds = checkpoint.model, list(settings.planner_seeds)
    if name == "prior":
        space = action_space(checkpoint.action_low, checkpoint.action_high, 1, model.chunk)
        prior, how = require_prior(checkpoint.prior, "planners: prior"), settings.prior_alone
        how.check(prior.architecture.segment)
        alone = PriorController(
            model, prior, space, str(device), how.execute_steps, how.temperature, settings.precision
        )
        yield Entry(name, "planner", alone, seeds, labels=labels)
        return
    for one in tried:
        controller, search = LatentMPC(env, checkpoint, one, device), one.planner.search
        label = name + " + prior" * bool(one.planner.prior) + " + hold" * one.planner.hold
        label += " + event-triggered" * search.event_triggered
        told = {"samples": search.samples, "iterations": search.iterations, "horizon": one.planner.horizon}
        told |= {"energy": one.energy.label}
        alone = search.event_triggered or bool(one.deadline)
        yield Entry(label, "planner", controller, seeds, alone=alone, labels=told | labels)


def model_labels(checkpoints: Sequence[Checkpoint], named: Sequence[str]) -> list[dict[str, str]]:
    """What tells several checkpoints apart in a table: training seeds, environments learned from, or else how they were
    `named`."""
    if len(checkpoints) < 2:
        return [{} for _ in checkpoints]
    choices = (
        [f"{TRAINING_SEED}{checkpoint.about.get('seed')}" for checkpoint in checkpoints],
        [f"of {checkpoint.env}" for checkpoint in checkpoints],
        list(named),
    )
    names = next((names for names in choices if len(set(names)) == len(names)), choices[-1])
    return [{"model": name} for name in names]
