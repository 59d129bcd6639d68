"""A search as one compiled function, where that can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Backend = Literal["auto", "eager", "inductor", "cudagraphs", "aot_eager"]


class Fast:
    """A function of tensors, and of what holds some, that gives a named tuple; compiled whole at its second call.

    The first call fills what is cached on the way, and many a function has no second. `gradients` says whether the
    function differentiates. Not everything can be compiled: an energy may leave torch, a machine may lack a compiler.
    Then it runs as it is.
    """

    def __init__(self, function: Callable[..., Any], backend: Backend, device: torch.device, gradients: bool) -> None:
        self._on_gpu = device.type == "cuda"
        if backend == "auto":
            backend = "cudagraphs" if self._on_gpu else "eager"
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._warm = False
        if backend != "eager":
            settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "isolate_recompiles": True}
            self._compiled = torch.compile(function, backend=backend, **settings)
            if gradients:
                self._compiled = torch._dynamo.config.patch(trace_autograd_ops=True)(self._compiled)

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was compiled."""
        if self._compiled is not None and self._warm:
            try:
                found = self._compiled(*arguments)
                if self._on_gpu:  # what a CUDA graph returns is overwritten by its next replay
                    found = found._make(value.clone() if isinstance(value, Tensor) else value for value in found)
                return found, True
            except Exception:  # whatever it is: if it is the caller's fault, eager execution says so in plain words
                self._compiled = None
        self._warm = True
        return self._function(*arguments), False
