"""A search as a CUDA graph: its kernels are recorded once, and from then on launched as one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from copy import copy
from enum import Enum
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CONSTANT = (type(None), bool, int, float, str, bytes, type, torch.dtype, torch.device, Enum, BuiltinFunctionType)
Record = Callable[[Callable[[], Any]], Callable[[], Any]]


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
    """A method that takes tensors, and what holds some, and gives a named tuple; recorded at the second call with
    arguments of a structure, and replayed from then on.

    Their structure is all of them but the tensors' values: shapes, numbers, names, functions, and where the weights of
    modules, and tensors that functions close over, lie; these are read there, so that what changes in place is seen.
    What cannot be looked into (an energy that leaves torch) or recorded (one that waits for the device) runs as it is.
    """

    KEPT = 4
    """Recordings; each holds the memory of its search."""

    def __init__(self, function: Callable[..., Any], record: Record = record_graph) -> None:
        self._function, self._record = function, record
        self._recorded: dict[Hashable, _Recording | None] = {}
        self._seen: deque[Hashable] = deque(maxlen=self.KEPT)
        self._modules = Modules()

    def __call__(self, *arguments: Any) -> tuple[Any, bool]:
        """The function's result, and whether it was a replay."""
        parts = Parts(self._modules)
        try:
            structure = parts.take(arguments)
        except OpaqueError:
            return self._function(*arguments), False
        if structure not in self._recorded:
            if structure in self._seen:
                while len(self._recorded) >= self.KEPT:
                    del self._recorded[next(iter(self._recorded))]
                self._recorded[structure] = self._recording(arguments, parts)
            else:
                self._seen.append(structure)
        recording = self._recorded.get(structure)
        if recording is None:
            return self._function(*arguments), False
        for static, tensor in zip(recording.inputs, parts.tensors, strict=True):
            static.copy_(tensor)
        return cloned(recording.replay()), True

    def _recording(self, arguments: tuple[Any, ...], parts: Parts) -> _Recording | None:
        inputs = [tensor.clone() for tensor in parts.tensors]
        try:
            own = together(arguments, iter(inputs))
            with torch.cuda.device_of(inputs[0]):
                return _Recording(inputs, self._record(partial(self._function, *own)), (own, parts.weights))
        except Exception:  # whatever it is: if it is the caller's fault, eager execution says so in plain words
            return None


class _Recording(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], Any]
    held: Any
    """What must live as long, for the graph knows its addresses."""


class OpaqueError(TypeError):
    """An argument that cannot be looked into."""


class Parts:
    """Takes arguments apart into their structure, their `tensors`, and the `weights` that are read where they lie.

    `modules` are known from the last time. `mutable` is what may hold other things the next time, of what is fixed, and
    `closed` says whether a function closes over more, which nothing tells.
    """

    def __init__(self, modules: Modules | None = None) -> None:
        self.tensors: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.mutable: list[Collection[Any]] = []
        self.closed = False
        self._known = modules
        self._inside: set[int] = set()
        self._modules: set[int] = set()

    def take(self, value: Any, fixed: bool = False) -> Hashable:
        """The structure of `value`; tensors of what is `fixed` are weights. Raises OpaqueError."""
        match value:
            case Tensor() if fixed:
                self.weights.append(value)
                return id(value), _place(value)
            case Tensor():
                self.tensors.append(value)
                return value.shape, value.dtype, value.device
            case _ if isinstance(value, CONSTANT):
                return type(value), value
            case FunctionType():
                cells = [cell.cell_contents for cell in value.__closure__ or ()]
                self.closed = self.closed or bool(cells)
                return value.__code__, self.take(cells, True), self.take(value.__defaults__ or (), True)
            case nn.Module() if id(value) in self._modules:
                return id(value)
            case nn.Module() if self._known is not None:
                self._modules.add(id(value))
                number, weights = self._known.look(value)
                self.weights += weights
                return number
        if id(value) in self._inside:
            raise OpaqueError(f"{type(value).__name__} holds itself")
        self._inside.add(id(value))
        if isinstance(value, nn.Module):
            self._modules.add(id(value))
        found = type(value), id(value) * isinstance(value, nn.Module), self._take_inside(value, fixed)
        self._inside.remove(id(value))
        return found

    def _take_inside(self, value: Any, fixed: bool) -> Hashable:
        if fixed and isinstance(value, (list, set, Mapping)):
            self.mutable.append(value)
        match value:
            case tuple() | list():
                return tuple(self.take(item, fixed) for item in value)
            case set() | frozenset() if all(isinstance(item, CONSTANT) for item in value):
                return frozenset(value)
            case Mapping():
                return tuple((key, self.take(item, fixed)) for key, item in value.items())
            case MethodType():
                return value.__func__, self.take(value.__self__, fixed)
            case partial():
                return self.take((value.func, value.args, value.keywords), fixed)
            case nn.Module():
                return self.take(vars(value), True)
            case _ if hasattr(value, "__dict__"):
                return self.take(vars(value), fixed)
        raise OpaqueError(f"{type(value).__name__} cannot be looked into")


class Modules:
    """What was found in modules: most of what a plan is given, which seldom changes. Looking at all of it takes longer
    than a small replay, seeing that nothing changed a seventh of that."""

    KEPT = 16

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}
        self._numbers: dict[Hashable, int] = {}

    def look(self, module: nn.Module) -> tuple[int, list[Tensor]]:
        """A number for the module's structure, the same whenever it is as it was, and its weights. Raises
        OpaqueError."""
        look = self._looks.get(id(module))
        if look is None or not look.still():
            parts = Parts()
            structure = parts.take(module)
            number = self._numbers.setdefault(structure, len(self._numbers))
            look = _Look(module, number, parts)
            self._looks.pop(id(module), None)
            while len(self._looks) >= self.KEPT:
                del self._looks[next(iter(self._looks))]
            self._looks[id(module)] = look
        return look.number, look.weights


class _Look:
    """What was found in a module, and all that it was read from."""

    def __init__(self, module: nn.Module, number: int, parts: Parts) -> None:
        self.number, self.weights = number, parts.weights
        self._lasts = not parts.closed
        self._mutable = parts.mutable
        self._values = [mutable.values() for mutable in parts.mutable if isinstance(mutable, Mapping)]
        self._found = self._identities()
        self._places = [_place(weight) for weight in self.weights]
        self._held = module, [*map(list, self._mutable)], [*map(list, self._values)]

    def still(self) -> bool:
        """Whether nothing in it changed."""
        return (
            self._lasts
            and self._identities() == self._found
            and [_place(weight) for weight in self.weights] == self._places
        )

    def _identities(self) -> list[int]:
        """How much each holds, and what; `_held` sees to it that no other thing gets one of these numbers."""
        return [*map(len, self._mutable), *map(id, chain.from_iterable(chain(self._mutable, self._values)))]


def _place(weight: Tensor) -> tuple[int, torch.Size, torch.dtype]:
    return weight.data_ptr(), weight.shape, weight.dtype


def together(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with others for the tensors that `Parts.take` found in it, in that order."""
    match value:
        case Tensor():
            return next(tensors)
        case _ if isinstance(value, (*CONSTANT, FunctionType, nn.Module, set, frozenset)):
            return value
        case tuple() if hasattr(value, "_make"):
            return type(value)(*(together(item, tensors) for item in value))
        case tuple() | list():
            return type(value)(together(item, tensors) for item in value)
        case Mapping():
            return {key: together(item, tensors) for key, item in value.items()}
        case MethodType():
            return MethodType(value.__func__, together(value.__self__, tensors))
        case partial():
            func, args, keywords = together((value.func, value.args, value.keywords), tensors)
            return partial(func, *args, **keywords)
    other = copy(value)
    for key, item in vars(value).items():
        object.__setattr__(other, key, together(item, tensors))
    return other
