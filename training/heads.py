"""What the stages after the world model share, which learn on its embeddings and leave it as it is.

E episodes, T environment steps an episode, A action size, D latent size, P numbers of the tracked positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..episodes import Recordings
from ..models.checkpoint import not_finite
from ..models.world_model import WorldModel
from .schedule import diverged, torch_seed, warm_cosine

WARMUP = 200


class Recorded(NamedTuple):
    """A recording as a trained model sees it: embeddings z (E, T + 1, D), the tracked positions (E, T + 1, P) in metres
    and actions (E, T, A)."""

    z: Tensor
    positions: Tensor
    actions: Tensor

    @classmethod
    @torch.no_grad()
    def embed(cls, model: WorldModel, data: Recordings, tracked: Mapping[str, slice], batch: int = 1000) -> Recorded:
        """The train split; `tracked` are the columns of `state` with the positions, by environment."""
        device, parts = model.metric.device, list(model.architecture.observations)
        columns = data.load("train", [*parts, "action"])
        frames = {part: torch.from_numpy(columns[part]).flatten(0, 1) for part in parts}
        count = len(next(iter(frames.values())))
        z = torch.cat(
            [
                model.encode({part: values[i : i + batch].to(device) for part, values in frames.items()}).cpu()
                for i in range(0, count, batch)
            ]
        )
        positions = torch.from_numpy(data.load_tracked("train", tracked))
        return cls(z.unflatten(0, positions.shape[:2]), positions, torch.from_numpy(columns["action"]).float())


def draw_ahead(
    rng: np.random.Generator, episodes: int, length: int, count: int, least: int, mean: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, steps and later steps (count,) of episodes of T = `length` steps: hindsight, what came is what was wanted.

    At least `least` steps ahead, on average `mean`, at most to the end.
    """
    episode, start = rng.integers(episodes, size=count), rng.integers(length - least + 1, size=count)
    ahead = least - 1 + rng.geometric(1 / (mean - least + 1), size=count)
    return episode, start, np.minimum(start + ahead, length)


def draw_windows(rng: np.random.Generator, episodes: int, length: int, count: int, span: int) -> tuple[Tensor, Tensor]:
    """Rows and first steps, both (`count`, 1), of windows of `span` steps of episodes of T = `length`."""
    episode, start = rng.integers(episodes, size=(count, 1)), rng.integers(length - span + 1, size=(count, 1))
    return torch.from_numpy(episode), torch.from_numpy(start)


def fit(
    head: nn.Module,
    loss: Callable[[int, torch.Generator], Tensor],
    steps: int,
    learning_rate: float,
    seed: int,
    bf16: bool,
    advance: Callable[[int], None],
) -> None:
    """Trains a head in place. `loss(step, noise)` gets a generator whose numbers are a function of seed and step;
    `advance(steps)` is told of progress.

    Raises:
        TrainingError: where it ends in a loss or weights that are not finite.
    """
    device = next(head.parameters()).device
    optimizer = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=1e-4, fused=True)
    noise = torch.Generator(device)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm_cosine(step, steps, WARMUP)
        noise.manual_seed(torch_seed(seed, step))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(step, noise)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        advance(1)
        if step + 1 == steps and not_finite({"loss": value, **head.state_dict()}):
            raise diverged(learning_rate, steps)
    head.eval().requires_grad_(False)
