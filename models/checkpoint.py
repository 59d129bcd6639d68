"""Checkpoints: a folder with `model.safetensors` and `config.json`. Loading one runs no code but ours.

`config.json` is what makes a checkpoint: it holds the hash of each file of weights, and a save writes these beside
their places first, then `config.json`, and then moves them. Whenever that stops, there is one checkpoint, whole: the
one before or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

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


RUN = "checkpoint"
"""The folder of it in that of a training."""


def shipped_name(env: str, obs: str) -> str:
    """The folder under models/pretrained of the checkpoint that comes with Forearm."""
    return f"{env}-{obs}".replace("/", "-")


def shipped() -> Path:
    """Where the checkpoints lie that come with Forearm, each in a folder of its name."""
    return Path(__file__).parent / "pretrained"


def checkpoint_folder(named: str) -> Path:
    """The checkpoint's folder, where it, that of the run which wrote it, or one that is shipped is named."""
    run = Path(named)
    inside = (run / RUN, run / "train" / RUN)  # of a training, of a quickstart
    known = (run, *inside) if run.exists() else (shipped() / named,)
    return next((folder for folder in known if (folder / CONFIG).is_file()), run)


def shipped_for(env: str, obs: str) -> Path:
    """The folder of the checkpoint that is shipped for an environment and an observation. UserError where none is."""
    folder = shipped() / shipped_name(env, obs)
    if not folder.is_dir():
        there = ", ".join(sorted(path.parent.name for path in shipped().glob("*/config.json")))
        raise UserError(
            f"checkpoint=null: none is shipped for env={env} obs={obs} (shipped: {there or 'none'}); "
            f"train one and give its folder as checkpoint=…"
        )
    return folder


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
        """Writes it to `folder`, in place of the checkpoint there, if there is one.

        Raises:
            CheckpointError: naming a tensor that is not finite; nothing is written.
        """
        modules = self._modules
        for name, module in modules.items():
            if bad := not_finite(module.state_dict()):
                raise CheckpointError(f"{folder / name}: {bad} is not finite; nothing was written")
        weights = {name: _weights(module) for name, module in modules.items()}
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in weights.items()}
        _settle(folder)
        for name, data in weights.items():
            write_atomic(_beside(folder / name), data)
        write_json(folder / CONFIG, {"format": FORMAT, "forearm": __version__, **self._config, "sha256": hashes})
        for name in (WEIGHTS, PRIOR, TEMPORAL):
            if name in weights:
                os.replace(_beside(folder / name), folder / name)
            else:
                for place in (folder / name, _beside(folder / name)):
                    place.unlink(missing_ok=True)
        return folder

    @property
    def sha256(self) -> str:
        """Over every weight and all that is told of them: two checkpoints with the same one plan alike."""
        digest = hashlib.sha256(json.dumps(self._config, sort_keys=True).encode())
        for module in self._modules.values():
            digest.update(_weights(module))
        return digest.hexdigest()

    @property
    def _modules(self) -> dict[str, nn.Module]:
        """What it has weights of, by the name of their file."""
        modules = {WEIGHTS: self.model, PRIOR: self.prior, TEMPORAL: self.temporal}
        return {name: module for name, module in modules.items() if module is not None}

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
            hashes = dict(config.get("sha256", {}))  # 0.1.0 wrote none
        except CheckpointError as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{folder / CONFIG}: not a checkpoint's configuration ({error!r})") from None
        for name, module in checkpoint._modules.items():
            _load(module, folder / name, hashes.get(name), device)
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

    def meet(
        self,
        key: str,
        source: str,
        shapes: Mapping[str, tuple[int, ...]],
        worlds: Mapping[str, WorldFacts],
        tracked: int | None = None,
    ) -> None:
        """Makes sure that it, given as `key`, takes what a source has, and says where that is of another world than the
        one it was trained in: that may be what is to be tried.

        Raises:
            CheckpointError: see `require_shapes`.
        """
        try:
            self.require_shapes(source, shapes, tracked)
        except CheckpointError as error:
            raise CheckpointError(f"{key}: {error}") from None
        for env, now in worlds.items():
            if (trained_in := self.world(env)).same_model(now) is False:
                print(f"note: {key}: was trained in {trained_in.seen_from(now)}", file=sys.stderr)


def _weights(module: nn.Module) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def _beside(path: Path) -> Path:
    """Where weights are until the config.json that knows them is there."""
    return path.with_name(f"next-{path.name}")


def _load(module: nn.Module, path: Path, sha256: str | None, device: torch.device | str) -> None:
    """Fills a module with the weights of a file, or of the one that a stopped save left beside it, and makes it ready
    to use. Where `sha256` is known, the file must have it.

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    try:
        held = _read(path, sha256)
        module.load_state_dict(load(held))
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: cannot be loaded ({reason})") from None
    if bad := not_finite(module.state_dict()):
        raise CheckpointError(f"{path}: {bad} is not finite; the training that wrote it had diverged")
    module.to(device).eval().requires_grad_(False)


def _read(path: Path, sha256: str | None) -> bytes:
    """What a file of weights holds.

    Raises:
        CheckpointError: where it is not what was saved.
        OSError: where it cannot be read.
    """
    if sha256 is None:
        return path.read_bytes()
    for place in (path, _beside(path)):
        if place.exists() and hashlib.sha256(held := place.read_bytes()).hexdigest() == sha256:
            return held
    fault = f"its sha256 is not {sha256[:12]}…, as {CONFIG} says: damaged, or another checkpoint's"
    raise CheckpointError(f"{path}: cannot be loaded ({fault if path.exists() else 'there is no such file'})")


def _settle(folder: Path) -> None:
    """Moves the weights of a stopped save to their places, if their config.json is there already."""
    try:
        hashes = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return  # none was saved here, or by a version that knew no such thing
    for name, sha256 in hashes.items():
        place = _beside(folder / name)
        if place.exists() and hashlib.sha256(place.read_bytes()).hexdigest() == sha256:
            os.replace(place, folder / name)


def _architecture(config: Mapping[str, Any]) -> Architecture:
    architecture = Architecture(**config)
    for kind, registry in (
        (architecture.predictor, PREDICTORS),
        *((k, ENCODERS) for k in architecture.encoders.values()),
    ):
        if kind not in registry:
            known = ", ".join(registry)
            raise CheckpointError(
                f"architecture names {kind!r}; this version knows: {known}; parts of your own come by --plugin"
            )
    return architecture
