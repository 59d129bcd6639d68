"""A function compiled whole, where that can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

Backend = Literal["auto", "eager", "inductor", "cudagraphs", "aot_eager"]
"""What runs a search; "cudagraphs" is `Captured`, on a GPU, the others but "eager" are torch.compile's, "inductor" on a
GPU both."""


class Fast:
    """A method that takes tensors, and what holds some; compiled whole at its second call. Its object does not change.

    The first call fills what is cached on the way, and many a function has no second. `gradients` says whether the
    function differentiates. Not everything can be compiled: an energy may leave torch, a machine may lack a compiler.
    Then it runs as it is.
    """

    def __init__(self, function: Callable[..., Any], backend: Backend, device: torch.device, gradients: bool) -> None:
        self._function = function
        self._ways: list[Callable[..., Any]] = []
        self._warm = False
        if backend in ("auto", "eager", "cudagraphs"):
            return
        options: dict[str, Any] = {"guard_filter_fn": _can_change}
        choices = [options]
        if backend == "inductor":
            options["size_asserts"] = False  # what the guards have seen to
            if device.type == "cpu":  # Python took a third of a small plan; a model's steps cannot be called from C++
                choices = [options | {"cpp_wrapper": True}, options]
        settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "isolate_recompiles": True}
        for choice in choices:
            way = torch.compile(function, backend=backend, options=choice, **settings)
            self._ways.append(torch._dynamo.config.patch(trace_autograd_ops=True)(way) if gradients else way)

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was compiled."""
        while self._ways and self._warm:
            try:
                return self._ways[0](*arguments), True
            except Exception:  # whatever it is: if it is the caller's fault, eager execution says so in plain words
                del self._ways[0]
        self._warm = True
        return self._function(*arguments), False


def _can_change(guards: Sequence[Any]) -> list[bool]:
    """Which guards must be checked at every call: not those on the method's own object, nor on how classes are made,
    which took a tenth of a small plan."""
    return [not entry.orig_guard.name.replace("dict(", "").startswith(("L['self']", "type(")) for entry in guards]
