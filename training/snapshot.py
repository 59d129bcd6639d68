"""Snapshots: all that the next training step depends on, in one safetensors file, whole or not there."""

from __future__ import annotations

import hashlib
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
from ..models.checkpoint import not_finite


class ResumeError(UserError):
    """There is nothing to resume, or it was begun with other settings."""


HASHED = {"data": "data", "init": "init", "world": "frozen"}
"""Settings that are compared by a hash of what they name: the name they are stored by, and their key in a config."""


def require_same(begun: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """ResumeError, naming the key and both values, for the first of `settings` that a training was not begun with."""
    for key, value in settings.items():
        before = begun.get(key)
        if before == value:
            continue
        if key in HASHED and isinstance(before, str) and isinstance(value, str):
            told = f"is not what this training was begun with (sha256 {value[:12]}, not {before[:12]})"
            raise ResumeError(f"{HASHED[key]}=…: {told}; give that again to resume")
        raise ResumeError(f"{key}={value}: this training was begun with {key}={before}; keep it to resume")


def tensors_of(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a snapshot keeps, by name: weights, buffers, the optimiser's moments."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    return tensors


def save(path: Path, tensors: dict[str, Tensor], step: int, settings: Mapping[str, Any]) -> None:
    """Writes `tensors_of` a training, the steps done and the settings. Batches and noise are functions of seed and
    step, so no generator needs saving."""
    told = {"step": str(step), "settings": json.dumps(settings), "sha256": _sha256(tensors)}
    write_atomic(path, serialise(tensors, metadata=told))


def load(path: Path) -> tuple[dict[str, Tensor], int, dict[str, Any]]:
    """What `save` wrote: tensors, the steps done, and the settings.

    Raises:
        ResumeError: if there is no snapshot, or it is damaged; it names the file.
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
    if metadata.get("sha256", known := _sha256(tensors)) != known:  # 0.1.0 wrote none
        raise ResumeError(f"{path}: is damaged; its weights are not those that were saved")
    if bad := not_finite(tensors):
        raise ResumeError(f"{path}: {bad} is not finite; the training that wrote it had diverged")
    return tensors, step, begun


def restore(
    path: Path, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Puts what `load` read of `path` back where `tensors_of` took it from.

    Raises:
        ResumeError: if it does not fit.
    """
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


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
