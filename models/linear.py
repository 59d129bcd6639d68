"""Linear maps in which no row's result depends on how many rows are beside it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 4
"""Rows that a product on a CPU is filled up to a multiple of. Libraries multiply what is left over by other kernels,
which sum in another order. Where bfloat16 follows, a difference in the last bit becomes one in the third digit."""


def lacking(count: int, x: Tensor) -> int:
    """Rows by which `count` of them are to be filled up, on the device of `x`."""
    return -count % BLOCK if x.device.type == "cpu" else 0


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, I) weight' + bias, (…, O), for weight (O, I) and bias (O,).

    On a CPU, rows x (B, I) are each as they would be alone. Of candidates (B, N, I) see `WorldModel.imagine`.
    """
    if x.dim() != 2 or not (missing := lacking(len(x), x)):
        return F.linear(x, weight, bias)
    return F.linear(F.pad(x, (0, 0, 0, missing)), weight, bias)[: len(x)]


class Linear(nn.Linear):
    """A layer of `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 2 or not input.shape[0] % BLOCK:  # nothing to fill up: one call less, of many a plan makes
            return F.linear(input, self.weight, self.bias)
        return linear(input, self.weight, self.bias)
