"""Where bfloat16 pays."""

from __future__ import annotations

import torch

from ..errors import UserError

PRECISIONS = ("auto", "bf16", "fp32")


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
