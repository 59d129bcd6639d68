"""A function compiled whole, where that can be had."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Literal

import torch

from .capture import told

Backend = Literal["auto", "eager", "inductor", "cudagraphs", "aot_eager"]
"""What runs a search; "cudagraphs" is `Captured`, on a GPU, the others but "eager" are torch.compile's, "inductor" on a
GPU both."""


class Fast:
    """A method that takes tensors, and what holds some; compiled whole at its second call. Its object does not change.

    The first call fills what is cached on the way, and many a function has no second. `gradients` says whether the
    function differentiates. Not everything can be compiled: an energy may leave torch, a machine may lack a compiler.
    Then it runs as it is, and a warning says why, once.
    """

    def __init__(self, function: Callable[..., Any], backend: Backend, device: torch.device, gradients: bool) -> None:
        self._function, self._backend = function, backend
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
        settings: dict[str, Any] = {"fullgraph": True, "dynamic": False}
        if "isolate_recompiles" in signature(torch.compile).parameters:  # from torch 2.13 on
            settings["isolate_recompiles"] = True
        if gradients and not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            self._ways = [_not_differentiated]
            return
        for choice in choices:
            way = torch.compile(function, backend=backend, options=choice, **settings)
            self._ways.append(torch._dynamo.config.patch(trace_autograd_ops=True)(way) if gradients else way)

    @property
    def compiles(self) -> bool:
        """Whether it is compiled, as far as is known."""
        return bool(self._ways)

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was compiled."""
        failed = None
        for index, way in enumerate(self._ways if self._warm else ()):
            try:
                found = way(*arguments)
            except Exception as error:  # whatever it is: if it is the caller's fault, eager execution says so
                failed = error
            else:
                self._ways = self._ways[index:]
                return found, True
        found = self._function(*arguments)
        self._warm = True
        if failed:
            self._ways = []
            reason = f"backend={self._backend} cannot compile a search, which runs eagerly: {told(failed)}"
            warnings.warn(reason, RuntimeWarning, stacklevel=3)
        return found, False


def _not_differentiated(*_: Any) -> Any:
    raise NotImplementedError(f"torch {torch.__version__} cannot compile what descends gradients; a later one can")


def _can_change(guards: Sequence[Any]) -> list[bool]:
    """Which guards must be checked at every call: not those on the method's own object, nor on how classes are made,
    which took a tenth of a small plan."""
    return [not entry.orig_guard.name.replace("dict(", "").startswith(("L['self']", "type(")) for entry in guards]
