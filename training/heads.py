"""What the stages after the world model share, which learn on its embeddings and leave it as it is.

E episodes, T environment steps an episode, A action size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..episodes import Dataset
from ..models.world_model import WorldModel
from .schedule import warm_cosine

WARMUP = 200


@torch.no_grad()
def embed(model: WorldModel, data: Dataset, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Embeddings (E, T + 1, D) and actions (E, T, A) of the train split."""
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
    actions = torch.from_numpy(columns["action"]).float()
    return z.unflatten(0, (len(actions), -1)), actions


def draw_ahead(
    rng: np.random.Generator, episodes: int, length: int, count: int, least: int, mean: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, steps and later steps (count,) of episodes of T = `length` steps: hindsight, what came is what was wanted.

    At least `least` steps ahead, on average `mean`, at most to the end.
    """
    episode, start = rng.integers(episodes, size=count), rng.integers(length - least + 1, size=count)
    ahead = least - 1 + rng.geometric(1 / (mean - least + 1), size=count)
    return episode, start, np.minimum(start + ahead, length)


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
    `advance(steps)` is told of progress."""
    device = next(head.parameters()).device
    optimizer = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=1e-4, fused=True)
    noise = torch.Generator(device)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm_cosine(step, steps, WARMUP)
        noise.manual_seed(seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(step, noise)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        advance(1)
    head.eval().requires_grad_(False)
