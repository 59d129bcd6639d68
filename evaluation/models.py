"""The models that a bench, a demo or a recording plans with, found by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from ..envs import World, action_size, observation_shapes
from ..episodes.facts import WorldFacts
from ..errors import UserError
from ..models.checkpoint import Checkpoint, checkpoint_folder, shipped_for, shipped_name
from ..models.foreign import ForeignModel, registered
from .settings import SceneSettings

Scene = TypeVar("Scene", bound=SceneSettings)


def load_model(scene: SceneSettings, named: str | None, device: torch.device) -> Checkpoint:
    """The checkpoint whose folder, or name among those shipped or registered, is given, or else the one shipped for the
    scene; made sure to be for that. `fits_world` asks about the world.

    Raises:
        UserError: naming the key and the valid choices.
    """
    env, obs = scene.env.name, scene.obs
    if named and (module := registered(named)) is not None:
        return as_checkpoint(module, scene, device)
    checkpoint = Checkpoint.load(checkpoint_folder(named) if named else shipped_for(env, obs), device)
    checkpoint.require(env, obs)
    size = checkpoint.env_config.get("size")
    if "pixels" in obs and size != scene.env.size:
        raise UserError(f"env.size={scene.env.size}: the checkpoint was trained for env.size={size}")
    return checkpoint


def as_checkpoint(module: nn.Module, scene: SceneSettings, device: torch.device) -> Checkpoint:
    """Somebody's own model with `encode` and `rollout`, to be planned with as a checkpoint is."""
    world = scene.env.make("state")
    shapes = observation_shapes(world) | {"pixels": (scene.env.size, scene.env.size, 3)}
    seen, size = {part: list(shapes[part]) for part in scene.obs.split("+")}, action_size(world)
    world.close()
    model = ForeignModel(module, seen, size).to(device).eval().requires_grad_(False)
    bounds = (-1.0,) * size, (1.0,) * size
    return Checkpoint(model, scene.env.name, {"size": scene.env.size}, scene.obs, *bounds)  # pyright: ignore[reportArgumentType]


def as_recorded(scene: Scene, checkpoints: Sequence[Checkpoint]) -> Scene:
    """A scene with the parameters of its world that it was recorded with, where none are set."""
    env = scene.env
    for checkpoint in checkpoints:
        if checkpoint.env == env.name:
            env = env.also(checkpoint.env_config)
    return replace(scene, env=env)


def fits_world(checkpoint: Checkpoint, named: str | None, world: World) -> None:
    """Makes sure that a checkpoint, as it was `named`, takes what a world observes; see `Checkpoint.meet`."""
    shapes = observation_shapes(world) | {"action": (action_size(world),)}
    checkpoint.meet(
        f"checkpoint={named or shipped_name(world.name, checkpoint.obs)}",
        f"env={world.name}",
        shapes,
        {world.name: WorldFacts.of(world)},
        world.tracked.stop - world.tracked.start,
    )
