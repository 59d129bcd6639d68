"""How far apart two embeddings are, in units of how fast each direction changes."""

from __future__ import annotations

import torch
from torch import Tensor


def slow_metric(z: Tensor, ridge: float) -> Tensor:
    """The map (D, D) under which plain distances count slow directions more, of windows of embeddings (W, T, D).

    An arm moves at every step and a cube only when it is pushed; a distance that weighs them alike is ruled by the arm.
    With Δ the second moment of one-step changes, distances are taken in Δ^(-1/2) z, where all directions change alike:
    slow feature analysis (Wiskott and Sejnowski 2002) without choosing features. `ridge`, in units of the mean change,
    keeps directions that hardly change from being all that counts. Scaled to leave the embeddings' mean variance at 1.
    """
    z = z.double()
    change = z.diff(dim=1).flatten(0, 1)
    moment = change.T @ change / len(change)
    rate, direction = torch.linalg.eigh(moment + ridge * moment.diagonal().mean() * torch.eye(len(moment)).to(moment))
    metric = direction * rate.clamp_min(1e-12).rsqrt()
    scale = (z.flatten(0, 1) @ metric).var(0).mean().sqrt().clamp_min(1e-12)
    return (metric / scale).float()
