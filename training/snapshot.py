"""Snapshots: all that the next training step depends on, in one safetensors file, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ..errors import UserError
from ..files import write_atomic


class ResumeError(UserError):
    """There is nothing to resume, or it was begun with other settings."""


def save(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: Mapping[str, Any],
) -> None:
    """Writes modules, the optimiser's moments, the steps done and the settings. Batches and noise are functions of
    seed and step, so no generator needs saving."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    write_atomic(path, serialise(tensors, metadata={"step": str(step), "settings": json.dumps(settings)}))


def load(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> int:
    """Restores what `save` wrote and returns the steps done.

    Raises:
        ResumeError: if there is no snapshot, it is damaged, or a setting differs; it names the key and both values.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        step, begun = int(metadata["step"]), json.loads(metadata["settings"])
    except (FileNotFoundError, NotADirectoryError):
        raise ResumeError(f"resume=true: there is no {path.name} in {path.parent}; start with resume=false") from None
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ResumeError(f"{path}: not a snapshot ({error})") from None
    for key, value in settings.items():
        if begun.get(key) != value:
            raise ResumeError(f"{key}={value}: this training was begun with {key}={begun.get(key)}; keep it to resume")
    for name, module in modules.items():
        own = {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise ResumeError(f"{path}: is of another version ({' '.join(str(error).split())[:200]})") from None
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, moment = key.split("/")
            state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
