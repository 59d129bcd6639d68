"""World models that were not trained by Forearm: any `torch.nn.Module` with `encode` and `rollout`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..registry import Registry
from .precision import Precision

MODELS: Registry[Callable[[], nn.Module]] = Registry("model", {}, key="checkpoint")
"""What makes each model that `checkpoint=NAME` may name beside checkpoints."""


def registered(named: str) -> nn.Module | None:
    """The model that is registered under a name, made; None where that is a folder, or no such name."""
    return MODELS[named]() if not Path(named).exists() and named in MODELS else None


@dataclass(frozen=True)
class ForeignArchitecture:
    """What is known of it: the shapes of what it sees, by part, and of actions."""

    observations: Mapping[str, list[int]]
    action_size: int
    readout: int = 0


class ForeignModel(nn.Module):
    """Has a module planned with as a `WorldModel` is.

    The module's `encode` takes parts of observations (B, …) and gives z (B, D); its `rollout` takes z and actions
    (B, N, T, A) and gives (B, N, H, D), one embedding for every `chunk` of its steps: an attribute of it, 1 where it
    has none. Nothing is read off its embeddings, and distances are of these as they are.
    """

    members = 1
    readout = None
    precision: Precision = "fp32"
    width = 0

    def __init__(self, module: nn.Module, observations: Mapping[str, list[int]], action_size: int) -> None:
        super().__init__()
        for name in ("encode", "rollout"):
            if not callable(getattr(module, name, None)):
                raise UserError(f"{type(module).__name__}: a world model needs the methods encode and rollout")
        self.module = module
        self.chunk = int(getattr(module, "chunk", 1))
        self.architecture = ForeignArchitecture(dict(observations), action_size)
        self.register_buffer("metric", torch.zeros(0), persistent=False)  # where it computes

    def in_precision(self, precision: Precision) -> Self:
        """Itself: in which numbers it multiplies is its own affair."""
        del precision
        return self

    def slow(self, z: Tensor) -> Tensor:
        """Embeddings as they are."""
        return z

    def encode(self, observation: Mapping[str, Tensor]) -> Tensor:
        z = self._module.encode(observation)
        return self._checked("encode", z, (len(next(iter(observation.values()))), "D"))

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        b, n, t, _ = actions.shape
        return self._checked("rollout", self._module.rollout(z, actions), (b, n, t // self.chunk, z.shape[-1]))

    def _checked(self, name: str, result: Any, wanted: tuple[Any, ...]) -> Tensor:
        """What a method returned. UserError, naming both shapes, where it is of another."""
        shape = tuple(getattr(result, "shape", ()))
        fits = len(shape) == len(wanted) and all(w in (s, "D") for s, w in zip(shape, wanted, strict=True))
        if not fits:
            told = ", ".join(map(str, wanted))
            raise UserError(f"{type(self.module).__name__}.{name}: must return ({told}), and gave {shape}")
        return result

    @property
    def _module(self) -> Any:
        return self.module
