"""In which numbers products are computed: bfloat16 or 8-bit integers where they pay."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UserError

Precision = Literal["fp32", "bf16", "int8"]
"""Of a model's products where it does not learn."""
PRECISIONS = ("auto", "bf16", "fp32")
"""Of training."""
PLANNING_PRECISIONS = (*PRECISIONS, "int8")
"""Of imagined rollouts."""
WIDE = 256
"""Inputs that a model's widest layer has at least to be worth bfloat16 on a CPU: with fewer, casting a hundred rows
takes longer than their products gain."""
QUANTISED = 64
"""Inputs that a layer has at least to be worth 8-bit integers."""
LARGEST = 127


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; emulated, it is slower than float32. Not so as torch tells of, in
    builds without oneDNN (macOS) and of versions that lack the question."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def cpu_has_int8() -> bool:
    """Whether this CPU sums products of 8-bit integers in one instruction (VNNI); others may overflow on the way."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni"))


def rollout_precision(precision: str, device: torch.device | str, width: int = WIDE) -> Precision:
    """Decides a `precision` in `PLANNING_PRECISIONS` for a model whose widest layer has `width` inputs; auto is that of
    `use_bf16`.

    Raises:
        UserError: for one that does not exist, or 8-bit integers where they are not to be had.
    """
    if precision not in PLANNING_PRECISIONS:
        raise UserError(f"precision={precision} is unknown; choose one of: {', '.join(PLANNING_PRECISIONS)}")
    if precision != "int8":
        return "bf16" if use_bf16(precision, device, pays_on_cpu=width >= WIDE) else "fp32"
    on_cpu = torch.device(device).type == "cpu"
    if not (on_cpu and cpu_has_int8()):
        why = "this CPU has no instructions for it (VNNI)" if on_cpu else "it is for CPUs"
        raise UserError(f"precision=int8 on {device}: {why}; choose one of: {', '.join(PRECISIONS)}")
    return "int8"


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


def multiplying_in(precision: Precision, module: nn.Module) -> nn.Module:
    """The module itself, or a copy for rollouts under `products(precision, …)`, of its weights as they are now."""
    if precision == "fp32":
        return module
    return narrowed(module) if precision == "bf16" else quantised(module)


def products(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which such a module is called."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def narrowed(module: nn.Module) -> nn.Module:
    """A copy for use under autocast, with the weights of its products in bfloat16 for good.

    Autocast by itself casts weights that nobody trains anew at every call, which took a quarter of a small plan. Norms
    keep their weights in float32, and sum in it; what they return is float32 on a GPU, and on a CPU bfloat16 where what
    they are given is.
    """
    copy = deepcopy(module)
    for part in copy.modules():
        if not isinstance(part, nn.LayerNorm):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    return copy


class Int8Linear(nn.Module):
    """A linear layer whose product is of 8-bit integers, summed in 32 bits.

    Weights are scaled by output, and inputs by row while it runs, so that no candidate's result depends on another's.
    That scaling takes a few operators more, which compilation fuses. There are no gradients.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scale = _reach(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).t())
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer(
            "bias", weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().clone()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) to (…, O)."""
        rows = x.flatten(0, -2)
        scale = _reach(rows)
        whole = torch.ops.aten._int_mm((rows / scale).round().to(torch.int8), self.weight)
        return torch.addcmul(self.bias, whole.float() * scale, self.scale).view(*x.shape[:-1], -1)


def _reach(rows: Tensor) -> Tensor:
    """By what rows (R, I) are divided to lie in [-127, 127], (R, 1)."""
    return rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny * LARGEST) / LARGEST


def quantised(module: nn.Module) -> nn.Module:
    """A copy whose larger linear layers multiply 8-bit integers."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear) and part.in_features >= QUANTISED]
    return deepcopy(module, {id(layer): Int8Linear(layer) for layer in layers})  # in the place of each
