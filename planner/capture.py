"""A search as a CUDA graph: its kernels are recorded once, and from then on launched as one.

A replay runs no Python, so that what a recording depends on must be known. It is not guessed: what is `Declared` says
it by its fields, a module by its weights, and anything else, a bare function above all, is never replayed.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import Field, fields
from enum import Enum
from functools import partial
from itertools import chain
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CONSTANT = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device, Enum)
Record = Callable[[Callable[[], Any]], Callable[[], Any]]


class Declared:
    """What says by the fields of its dataclass all that its results depend on, beside arguments.

    Fields hold tensors, numbers, names, modules and their methods, others that are declared, and tuples of these.
    Tensors are copied into a recording before each replay. Weights of modules are read where they lie, so that what
    changes in place is seen. A field with `FIXED` as metadata holds a function that depends on its arguments alone.
    """


FIXED = {"fixed": True}


def record_graph(function: Callable[[], Any]) -> Callable[[], Any]:
    """Records what `function` launches; returns what launches it again and gives the same tensors, written anew."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # once more before it is recorded, as torch asks where autograd is part of it
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = function()

    def replay() -> Any:
        graph.replay()
        return found

    return replay


def cloned(found: Any) -> Any:
    """A named tuple with tensors of its own: what a CUDA graph returns is overwritten by its next replay."""
    return found._make(value.clone() if isinstance(value, Tensor) else value for value in found)


class Captured:
    """A method that takes what is declared and gives a named tuple; recorded at the second call with arguments of a
    structure, and replayed from then on.

    Their structure is all of them but the tensors' values: shapes, numbers, names, and where the weights of modules
    lie. What is not declared, or cannot be recorded (it waits for the device), runs as it is; of the latter a warning
    says why, once.
    """

    KEPT = 4
    """Recordings; each holds the memory of its search."""

    def __init__(self, function: Callable[..., Any], record: Record = record_graph) -> None:
        self._function, self._record = function, record
        self._recorded: dict[Hashable, _Recording | None] = {}
        self._seen: deque[Hashable] = deque(maxlen=self.KEPT)
        self._warned = False

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was a replay."""
        parts = Parts()
        try:
            structure = parts.take(arguments)
        except OpaqueError:
            return self._function(*arguments), False
        failed = None
        if structure not in self._recorded:
            if structure in self._seen:
                while len(self._recorded) >= self.KEPT:
                    del self._recorded[next(iter(self._recorded))]
                try:
                    self._recorded[structure] = self._recording(arguments, parts)
                except Exception as error:  # whatever it is: if it is the caller's fault, eager execution says so
                    failed, self._recorded[structure] = error, None
            else:
                self._seen.append(structure)
        recording = self._recorded.get(structure)
        if recording is None:
            found = self._function(*arguments)
            if failed and not self._warned:
                self._warned = True
                warnings.warn(f"a search cannot be recorded, and runs eagerly: {told(failed)}", RuntimeWarning, 3)
            return found, False
        for static, tensor in zip(recording.inputs, parts.tensors, strict=True):
            static.copy_(tensor)
        return cloned(recording.replay()), True

    def _recording(self, arguments: tuple[Any, ...], parts: Parts) -> _Recording:
        inputs = [tensor.clone() for tensor in parts.tensors]
        own = together(arguments, iter(inputs))
        with torch.cuda.device_of(inputs[0]):
            return _Recording(inputs, self._record(partial(self._function, *own)), (own, parts.held))


class _Recording(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], Any]
    held: Any
    """What must live as long, for the graph knows its addresses."""


def told(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class OpaqueError(TypeError):
    """An argument that does not say what it depends on."""


class Parts:
    """Takes arguments apart into their structure, their `tensors`, and the modules and weights that are `held`."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.held: list[Any] = []

    def take(self, value: Any) -> Hashable:
        """The structure of `value`. Raises OpaqueError."""
        match value:
            case Tensor():
                self.tensors.append(value)
                return value.shape, value.dtype, value.device
            case _ if isinstance(value, CONSTANT):
                return type(value), value
            case Declared():
                return type(value), *(self._field(getattr(value, field.name), field) for field in _given(value))
            case tuple():
                return tuple(map(self.take, value))
            case MethodType() if isinstance(value.__self__, (Declared, nn.Module)):
                return value.__func__, self.take(value.__self__)
            case nn.Module():
                return tuple(self._part(part) for part in value.modules())
        raise OpaqueError(f"{type(value).__name__} does not say what it depends on")

    def _field(self, value: Any, field: Field[Any]) -> Hashable:
        if not field.metadata.get("fixed"):
            return self.take(value)
        self.held.append(value)
        return id(value)

    def _part(self, part: nn.Module) -> Hashable:
        """A module without those in it: its settings and hooks, and where its weights lie."""
        weights = [weight for weight in chain(part._parameters.values(), part._buffers.values()) if weight is not None]
        self.held += part, *weights
        settings = tuple(item for item in vars(part).items() if isinstance(item[1], CONSTANT))
        hooks = len(part._forward_hooks), len(part._forward_pre_hooks)
        return id(part), settings, hooks, *((weight.data_ptr(), weight.shape, weight.dtype) for weight in weights)


def _given(value: Any) -> list[Field[Any]]:
    """The fields that a declared value is made with."""
    return [field for field in fields(value) if field.init]


def together(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with others for the tensors that `Parts.take` found in it, in that order."""
    match value:
        case Tensor():
            return next(tensors)
        case Declared():
            return type(value)(**{f.name: together(getattr(value, f.name), tensors) for f in _given(value)})
        case tuple():
            return tuple(together(item, tensors) for item in value)
        case MethodType() if isinstance(value.__self__, Declared):
            return MethodType(value.__func__, together(value.__self__, tensors))
    return value
