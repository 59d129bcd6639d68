"""What recorded numbers are divided by, so that it does not matter in which units they were recorded."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps
STILL = 1000 * EPSILON
"""A number that varies by a smaller share of its magnitude never moves: float32 keeps less than three digits of it."""
LEAST = 0.01
"""Of lengths that are read together, the least that one is taken to vary by, as a share of what varies most."""


def deviation(values: Tensor) -> Tensor:
    """The deviation of each column (V,) of values (B, V) that may all be in units of their own.

    A column that never moves is divided by its magnitude, or where that is rounding beside the rest, by what varies
    most: that it moves one day must not blow up.
    """
    std, magnitude = values.std(0), values.abs().amax(0)
    rounding = EPSILON * std.max()
    instead = torch.where(magnitude > rounding, magnitude, std.max())
    moves = (std > STILL * magnitude) & (std > rounding)
    return torch.where(moves, std, torch.where(instead > 0, instead, 1.0))


def spread(lengths: Tensor) -> Tensor:
    """The deviation of each column (P,) of lengths (B, P) in one unit. What is read off embeddings is never quite
    still, so that one that hardly moves is taken to move a little beside the rest."""
    std = lengths.std(0)
    return std.clamp_min(LEAST * std.max()) if std.max() > 0 else torch.ones_like(std)
