"""A search as one compiled function, where that can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .capture import cloned

Backend = Literal["auto", "eager", "inductor", "cudagraphs", "aot_eager"]
"""What runs a search; "cudagraphs" is `Captured`, on a GPU, the others but "eager" are torch.compile's."""


class Fast:
    """A method that takes tensors, and what holds some, and gives a named tuple; compiled whole at its second call. The
    object that it belongs to does not change.

    The first call fills what is cached on the way, and many a function has no second. `gradients` says whether the
    function differentiates. Not everything can be compiled: an energy may leave torch, a machine may lack a compiler.
    Then it runs as it is.
    """

    def __init__(self, function: Callable[..., Any], backend: Backend, device: torch.device, gradients: bool) -> None:
        self._on_gpu = device.type == "cuda"
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._warm = False
        if backend not in ("auto", "eager", "cudagraphs"):
            options: dict[str, Any] = {"guard_filter_fn": _can_change}
            if backend == "inductor":
                options["size_asserts"] = False  # what the guards have seen to
                options["triton.cudagraphs"] = self._on_gpu
                options["cpp_wrapper"] = not self._on_gpu  # Python took a third of a small plan
            settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "isolate_recompiles": True}
            self._compiled = torch.compile(function, backend=backend, options=options, **settings)
            if gradients:
                self._compiled = torch._dynamo.config.patch(trace_autograd_ops=True)(self._compiled)

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was compiled."""
        if self._compiled is not None and self._warm:
            try:
                found = self._compiled(*arguments)
                return cloned(found) if self._on_gpu else found, True
            except Exception:  # whatever it is: if it is the caller's fault, eager execution says so in plain words
                self._compiled = None
        self._warm = True
        return self._function(*arguments), False


def _can_change(guards: Sequence[Any]) -> list[bool]:
    """Which guards must be checked at every call: not those on the method's own object, nor on how classes are made,
    which took a tenth of a small plan."""
    return [not entry.orig_guard.name.replace("dict(", "").startswith(("L['self']", "type(")) for entry in guards]
