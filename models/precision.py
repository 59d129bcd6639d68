"""Where bfloat16 pays."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

from ..errors import UserError

PRECISIONS = ("auto", "bf16", "fp32")
M = TypeVar("M", bound=nn.Module)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; emulated, it is slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def use_bf16(precision: str, device: torch.device | str, pays_on_cpu: bool = True) -> bool:
    """Decides a `precision`: auto takes bfloat16 on CUDA, and on a CPU that has it for work that is large enough there.

    Raises:
        UserError: for a precision that does not exist.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision} is unknown; choose one of: {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision == "bf16"
    return torch.device(device).type == "cuda" or (pays_on_cpu and cpu_has_bf16())


def narrowed(module: M) -> M:
    """A copy for use under autocast, with the weights of its products in bfloat16 for good.

    Autocast by itself casts weights that nobody trains anew at every call, which took a quarter of a small plan. Norms
    stay in float32, as autocast has them.
    """
    copy = deepcopy(module)
    for part in copy.modules():
        if not isinstance(part, nn.LayerNorm):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    return copy
