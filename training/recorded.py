"""A recording as a trained model sees it, for what is learned on top of that model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..episodes import Dataset
from ..models.world_model import WorldModel


class Recorded(NamedTuple):
    """Embeddings z (E, T + 1, D), the tracked positions (E, T + 1, P) in metres and actions (E, T, A) of E episodes."""

    z: Tensor
    positions: Tensor
    actions: Tensor

    @classmethod
    @torch.no_grad()
    def embed(cls, model: WorldModel, data: Dataset, tracked: slice, batch: int = 1000) -> Recorded:
        """The train split; `tracked` are the columns of `state` with the positions."""
        device, parts = model.metric.device, list(model.architecture.observations)
        columns = data.load("train", list(dict.fromkeys([*parts, "state", "action"])))
        frames = {part: torch.from_numpy(columns[part]).flatten(0, 1) for part in parts}
        count = len(next(iter(frames.values())))
        z = torch.cat(
            [
                model.encode({part: values[i : i + batch].to(device) for part, values in frames.items()}).cpu()
                for i in range(0, count, batch)
            ]
        )
        positions = torch.from_numpy(columns["state"][..., tracked])
        return cls(z.unflatten(0, positions.shape[:2]), positions, torch.from_numpy(columns["action"]).float())
