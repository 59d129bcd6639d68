"""Is the model any good, in words: has the latent collapsed, and does imagining beat believing that nothing moves?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.readout import Readout
from ..models.world_model import WorldModel

COLLAPSED = 1.5  # effective dimensions; what moves on a table needs at least two
MOVED, MOVED_SPREAD = 0.5, 0.1
"""How far something must move to count as moved: in tolerances of the environment; or where that is not known, in units
of how far apart its places are."""


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the spectrum of z's (B, D) covariance (Roy and Vetterli 2007): 1 … D dimensions in use."""
    spectrum = torch.linalg.eigvalsh(torch.cov(z.double().T)).clamp_min(0.0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


@dataclass(frozen=True)
class Validation:
    """Held-out figures. The `_cm` are median distances of the tracked position in centimetres: what is read off
    an encoded observation; off the embedding imagined H model steps ahead; and if nothing had moved; the last two over
    windows in which it moves. Of a model of several members, `val_loss` and `imagined_cm` are of them all, and
    `nearest_cm` is of the member that came nearest."""

    val_loss: float
    effective_rank: float
    probe_cm: float
    imagined_cm: float
    still_cm: float
    nearest_cm: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def words(self) -> str:
        if self.effective_rank < COLLAPSED:
            return f"the latent has COLLAPSED (effective rank {self.effective_rank:.1f}): raise objective.weight"
        verdict = "beats" if self.imagined_cm < self.still_cm else "does NOT beat"
        nearest = "" if self.nearest_cm is None else f" (the nearest member {digits(self.nearest_cm)} cm)"
        return (
            f"no collapse (effective rank {self.effective_rank:.1f}); sees the position to {digits(self.probe_cm)} cm; "
            f"imagining it, {digits(self.imagined_cm)} cm off{nearest}, {verdict} 'nothing moves', "
            f"{digits(self.still_cm)} cm"
        )


def digits(number: float) -> str:
    """A figure with one decimal, or as many more as two significant digits take."""
    places = 1 if not 0 < abs(number) < math.inf else max(1, 1 - math.floor(math.log10(abs(number))))
    return f"{number:.{places}f}"


@torch.no_grad()
def validate(
    model: WorldModel,
    train: Mapping[str, np.ndarray],
    held_out: Mapping[str, np.ndarray],
    device: torch.device,
    tolerance: float | None = None,
) -> Validation:
    """Measures a model on windows: observation parts and `tracked` points (W, H + 1, …), `action` (W, H K, A); the
    readout is fit on the `train` windows and everything is measured on the `held_out` ones. `tolerance` is that of the
    environment, metres, if known."""
    model.eval()
    z_train = encode_windows(model, train, device)
    z = encode_windows(model, held_out, device)
    actions = torch.from_numpy(held_out["action"]).to(device)
    imagined = model.rollout(z[:, 0].to(device), actions[:, None])[..., 0, :, :].cpu()
    position = torch.from_numpy(held_out["tracked"])
    read = Readout(z.shape[-1], position.shape[-1])
    read.fit(z_train.flatten(0, 1), torch.from_numpy(train["tracked"]).flatten(0, 1))
    still = (position[:, -1] - position[:, 0]).norm(dim=-1) * 100
    off = (read(imagined[..., -1, :]) - position[:, -1]).norm(dim=-1) * 100
    least = MOVED * tolerance if tolerance else MOVED_SPREAD * position.flatten(0, 1).var(0).sum().sqrt()
    moved = still > 100 * least
    moved = moved if moved.any() else torch.ones_like(moved)
    model.train()
    return Validation(
        val_loss=float((imagined - z[:, 1:]).square().mean()),
        effective_rank=effective_rank(z.flatten(0, 1)),
        probe_cm=float(((read(z[:, 0]) - position[:, 0]).norm(dim=-1) * 100).median()),
        imagined_cm=float(off[..., moved].median()),
        still_cm=float(still[moved].median()),
        nearest_cm=float(off.amin(0)[moved].median()) if model.members > 1 else None,
    )


@torch.no_grad()
def encode_windows(
    model: WorldModel, windows: Mapping[str, np.ndarray], device: torch.device, batch: int = 100
) -> Tensor:
    """Embeddings (W, H + 1, D) of all observations of windows, a few at a time."""
    count, steps = windows["action"].shape[0], windows["tracked"].shape[1]
    parts = {part: torch.from_numpy(windows[part]) for part in model.architecture.observations}
    encoded = [
        model.encode({part: value[i : i + batch].flatten(0, 1).to(device) for part, value in parts.items()}).cpu()
        for i in range(0, count, batch)
    ]
    return torch.cat(encoded).unflatten(0, (count, steps))
