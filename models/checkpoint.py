"""Checkpoints: a folder with `model.safetensors` and `config.json`. Loading one runs no code but ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import nn

from ..episodes.facts import WorldFacts
from ..errors import UserError
from ..files import write_atomic, write_json
from ..version import __version__
from .encoders import ENCODERS
from .predictor import PREDICTORS
from .prior import ActionPrior, PriorArchitecture
from .temporal import TemporalArchitecture, TemporalDistance
from .world_model import Architecture, WorldModel

FORMAT = 1
ENVS = "+"
"""Joins the names of environments, in none of which it can occur, where a model was trained for several."""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
HEADS = ("predictor", "readout", "prior", "temporal")
"""What may have been learned on embeddings that stay as they are, in order."""
PRIOR, TEMPORAL = "prior.safetensors", "temporal.safetensors"


def shipped_name(env: str, obs: str) -> str:
    """The folder under models/pretrained of the checkpoint that comes with Forearm."""
    return f"{env}-{obs}".replace("/", "-")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or made for something else; the message says which."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained world model and what it was trained for.

    `env` and `env_config` name the environment, or several as `push+reach`, `obs` the kind of observation (`pixels`,
    `state`, `pixels+proprio`), `action_low` and `action_high` the bounds (A,) of its actions; `about` holds whatever
    else is worth knowing (data, steps, versions); `prior` is an action prior and `temporal` a temporal distance that
    were trained for the model.
    """

    model: WorldModel
    env: str
    env_config: dict[str, Any]
    obs: str
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    prior: ActionPrior | None = None
    temporal: TemporalDistance | None = None

    def save(self, folder: Path) -> Path:
        write_atomic(folder / WEIGHTS, _weights(self.model))
        if self.prior is not None:
            write_atomic(folder / PRIOR, _weights(self.prior))
        if self.temporal is not None:
            write_atomic(folder / TEMPORAL, _weights(self.temporal))
        write_json(folder / CONFIG, {"format": FORMAT, "forearm": __version__, **self._config})
        return folder

    @property
    def sha256(self) -> str:
        """Over every weight and all that is told of them: two checkpoints with the same one plan alike."""
        digest = hashlib.sha256(json.dumps(self._config, sort_keys=True).encode())
        for module in (self.model, self.prior, self.temporal):
            digest.update(b"" if module is None else _weights(module))
        return digest.hexdigest()

    def told(self) -> str:
        """How it was trained, in a line."""
        about = self.about
        stages = "".join(f", {name} {about[f'{name}_steps']:,}" for name in HEADS if f"{name}_steps" in about)
        trained = f"{about['steps']:,} steps{stages}, training seed {about['seed']}" if "seed" in about else "untrained"
        return f"{trained} (sha256 {self.sha256[:12]})"

    @property
    def _config(self) -> dict[str, Any]:
        return {
            "architecture": asdict(self.model.architecture),
            "env": self.env,
            "env_config": self.env_config,
            "obs": self.obs,
            "action_low": self.action_low,
            "action_high": self.action_high,
            "about": dict(self.about),
            "prior": None if self.prior is None else asdict(self.prior.architecture),
            "temporal": None if self.temporal is None else asdict(self.temporal.architecture),
        }

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
        """Reads a checkpoint folder.

        Raises:
            CheckpointError: naming the file and what is wrong with it.
        """
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f"checkpoint={folder}: no {CONFIG} there; give the folder that `forearm train` wrote")
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if config["format"] != FORMAT:
                raise CheckpointError(f"format={config['format']!r}; this version reads {FORMAT}")
            model = WorldModel(_architecture(config["architecture"]))
            told = config.get("prior")
            prior = None if told is None else ActionPrior(PriorArchitecture(**told))
            told = config.get("temporal")
            temporal = None if told is None else TemporalDistance(TemporalArchitecture(**told))
            checkpoint = cls(
                model,
                config["env"],
                config["env_config"],
                config["obs"],
                tuple(config["action_low"]),
                tuple(config["action_high"]),
                config["about"],
                prior,
                temporal,
            )
        except CheckpointError as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{folder / CONFIG}: not a checkpoint's configuration ({error!r})") from None
        _load(model, folder / WEIGHTS, device)
        if prior is not None:
            _load(prior, folder / PRIOR, device)
        if temporal is not None:
            _load(temporal, folder / TEMPORAL, device)
        return checkpoint

    def require(self, env: str, obs: str, chunk: int | None = None) -> None:
        """Makes sure that this is a checkpoint for an environment, an observation and (unless None) a chunk size.

        Raises:
            CheckpointError: naming the key, what was asked for and what the checkpoint holds.
        """
        wanted = {"env": env, "obs": obs, "model.chunk": chunk}
        held = {"env": self.env, "obs": self.obs, "model.chunk": self.model.chunk}
        for key, value in wanted.items():
            known = self.env.split(ENVS) if key == "env" else [held[key]]
            if value is not None and value not in known:
                raise CheckpointError(f"{key}={value}: the checkpoint was trained for {key}={held[key]}")

    def world(self, env: str) -> WorldFacts:
        """What is told of the world of that name that it was trained in; older checkpoints tell nothing."""
        return WorldFacts.from_json(self.about.get("worlds", {}).get(env, {}))

    def require_shapes(self, source: str, shapes: Mapping[str, tuple[int, ...]], tracked: int | None = None) -> None:
        """Makes sure that it takes what it meets: observations and actions of `source`, such as `env=push`, by part and
        `action`; and, where they are given, that as many columns of `state` are tracked as it reads positions.

        Raises:
            CheckpointError: naming what it was trained on and what it meets.
        """
        known = self.model.architecture
        trained = {**{part: tuple(shape) for part, shape in known.observations.items()}, "action": (known.action_size,)}
        for part, shape in trained.items():
            if shapes.get(part) != shape:
                raise CheckpointError(f"was trained on {part} {shape}, {source} gives {shapes.get(part)}")
        if known.readout and tracked not in (None, known.readout):
            points = f"{known.readout // 3} tracked points, {source} has {(tracked or 0) // 3}"
            raise CheckpointError(f"reads positions of {points}")


def _weights(module: nn.Module) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})


def _load(module: nn.Module, path: Path, device: torch.device | str) -> None:
    """Fills a module with the weights of a file and makes it ready to use.

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    try:
        module.load_state_dict(load_file(path))
    except (safetensors.SafetensorError, FileNotFoundError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: cannot be loaded ({reason})") from None
    module.to(device).eval().requires_grad_(False)


def _architecture(config: Mapping[str, Any]) -> Architecture:
    architecture = Architecture(**config)
    for kind, registry in (
        (architecture.predictor, PREDICTORS),
        *((k, ENCODERS) for k in architecture.encoders.values()),
    ):
        if kind not in registry:
            raise CheckpointError(f"architecture names {kind!r}; this version knows: {', '.join(registry)}")
    return architecture
