"""What several commands share: run folders, devices, checkpoints, environments."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict
from ..errors import UserError
from ..files import write_atomic

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import ArmEnv
    from ..models.checkpoint import Checkpoint
    from ..planner import Planner

OBS = ("pixels", "state")


def check_obs(obs: str) -> str:
    if obs not in OBS:
        raise UserError(f"obs={obs} is unknown; choose one of: {', '.join(OBS)}")
    return obs


def run_folder(config: DictConfig, command: str, name: str) -> Path:
    """The folder a run writes to: `out`, or a new one under runs/COMMAND. Nothing there is ever overwritten.

    Raises:
        UserError: if `out` is in use.
    """
    out = Path(config.out) if config.out else Path("runs") / command / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: is in use and nothing is overwritten; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out)
    return out


def write_config(config: DictConfig, out: Path) -> None:
    from omegaconf import OmegaConf

    write_atomic(out / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())


def setup_device(config: DictConfig) -> torch.device:
    """The device to compute on, with CPU threads set.

    Raises:
        UserError: for a device that does not exist here.
    """
    import torch

    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={config.device} is unknown; choose one of: auto, cpu, cuda")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; choose cpu, and see `forearm doctor`")
    if config.threads < 0:
        raise UserError(f"threads={config.threads}: must be 0 (all) or more")
    if config.threads:
        torch.set_num_threads(config.threads)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if config.device == "auto" else config.device)


def load_checkpoint(config: DictConfig, device: torch.device) -> Checkpoint:
    """The checkpoint that `checkpoint` names, or the shipped one, made sure to be for `env` and `obs`."""
    from .. import models
    from ..models.checkpoint import Checkpoint

    env, obs = config.env.name, check_obs(config.obs)
    if config.checkpoint:
        folder = Path(config.checkpoint)
    else:
        shipped = Path(str(files(models))) / "pretrained"
        folder = shipped / f"{env}-{obs}"
        if not folder.is_dir():
            there = ", ".join(sorted(entry.name for entry in shipped.iterdir() if entry.is_dir()))
            raise UserError(
                f"checkpoint=null: none is shipped for env={env} obs={obs} (shipped: {there}); "
                f"train one and give its folder as checkpoint=…"
            )
    checkpoint = Checkpoint.load(folder, device)
    checkpoint.require(env, obs)
    return checkpoint


def make_env(config: DictConfig) -> ArmEnv:
    from ..envs import make

    return make(config.env.name, pixels=check_obs(config.obs) == "pixels", size=config.env.size)


def make_planner(settings: DictConfig, low: Any, high: Any, chunk: int, iterations_key: str = "planner") -> Planner:
    """The planner that a config's planner group describes, over plans of `horizon` chunks.

    Raises:
        UserError: for a setting that the planner has not, or a value it cannot take.
    """
    from ..evaluation.controllers import action_space
    from ..planner import make_planner as make

    values = as_dict(settings)
    name, horizon = values.pop("name"), values.pop("horizon")
    if not isinstance(horizon, int) or horizon < 1:
        raise UserError(f"planner.horizon={horizon}: must be a whole number of model steps, at least 1")
    try:
        return make(name, action_space(low, high, horizon, chunk), **values)
    except (TypeError, ValueError) as error:
        raise UserError(f"planner.{error}") from None
