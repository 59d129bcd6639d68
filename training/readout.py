"""Learning to read positions off embeddings, of what was seen and of what was imagined.

W windows, H model steps, D latent size, P numbers of the tracked positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.world_model import WorldModel
from .heads import Recorded, draw_windows, fit
from .members import nearest
from .settings import ReadoutSettings

IMAGINED = 20_000
"""Windows whose future is imagined; about as many embeddings as are encoded of a usual recording."""


@torch.no_grad()
def imagine(
    model: WorldModel, z: Tensor, actions: Tensor, horizon: int, windows: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (W, H, D) imagined under recorded actions (E, T, A) from embeddings z (E, T + 1, D), and the episode
    and the steps, (W, 1) and (W, H), that they are of. Of several members, the one that came nearest: that what is read
    off one future is not the mean of them all."""
    span = model.chunk * horizon
    episodes, length = actions.shape[:2]
    episode, start = draw_windows(rng, episodes, length, windows, span)
    done, step = actions[episode, start + torch.arange(span)], start + model.chunk * torch.arange(1, horizon + 1)
    device = model.metric.device
    imagined = []
    for rows in torch.arange(windows).split(1000):
        first, then = z[episode[rows, 0], start[rows, 0]], done[rows, None]
        futures = model.rollout(first.to(device), then.to(device))[..., 0, :, :].cpu()
        imagined.append(nearest(futures, z[episode[rows], step[rows]]) if model.members > 1 else futures)
    return torch.cat(imagined), episode, step


def refine_readout(
    model: WorldModel,
    recorded: Recorded,
    settings: ReadoutSettings,
    seed: int,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Trains the part of a model's readout that has no closed form; `advance(steps)` is told of progress.

    Half of the examples are imagined: what is read off those is the mean of where things then were, so that a plan is
    judged by where its actions lead, not by where the model dreams that they do.
    """
    readout, s = model.readout, settings
    assert readout is not None and readout.correction is not None
    z, positions, actions = recorded
    horizon = min(s.horizon, actions.shape[1] // model.chunk)
    dreamt, episode, step = imagine(model, z, actions, horizon, IMAGINED, np.random.default_rng(seed))
    pools = (z.flatten(0, 1), positions.flatten(0, 1)), (dreamt.flatten(0, 1), positions[episode, step].flatten(0, 1))
    device = model.metric.device

    def loss(step: int, noise: torch.Generator) -> Tensor:
        del noise
        rng = np.random.default_rng([seed, step])
        drawn = [rng.integers(len(pool), size=s.batch // 2 + 1) for pool, _ in pools]
        seen, there = (torch.cat([pool[i][d] for pool, d in zip(pools, drawn, strict=True)]).to(device) for i in (0, 1))
        return ((readout(seen) - there) / readout.spread).square().mean()

    readout.train().requires_grad_(True)
    fit(readout, loss, s.steps, s.learning_rate, seed, use_bf16(precision, device), advance)
