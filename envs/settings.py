"""Which world to make."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..settings import Key, SettingError, fitted, key, no_such_key
from .check import check_world
from .registry import WORLDS, make_world, parameters
from .world import World


@dataclass(frozen=True)
class EnvSettings:
    """A world by its name, the side of its images in pixels, and whatever its own maker takes."""

    name: str = "push"
    size: int = key(64, "pixels a side, a multiple of 16")
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size % 16 or self.size < 16:
            raise SettingError(f"size={self.size}: must be a multiple of 16, at least 16")

    @classmethod
    def of_group(cls, given: Mapping[str, Any]) -> EnvSettings:
        values = dict(given)
        name, size = values.pop("name", cls.name), fitted("size", values.pop("size", 64), int)
        if name not in WORLDS:
            WORLDS[name]  # raises, naming those that there are
        known = parameters(name)
        for each, value in values.items():
            if each not in known:
                raise no_such_key(each, value, ["size", *known], f"env={name}")
            if known[each] is not None:
                values[each] = fitted(each, value, type(known[each]))
        return cls(name, size, values)

    @classmethod
    def keys_of(cls, name: str) -> list[Key]:
        own = [Key(each, value, "", Any) for each, value in parameters(name).items()] if name not in WORLDS.own else []
        return [Key("size", 64, "pixels a side, a multiple of 16", int), *own]

    def as_group(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, **self.parameters}

    def also(self, recorded: Mapping[str, Any]) -> EnvSettings:
        """With the world's own parameters as they were recorded, where none are set."""
        rest = {each: value for each, value in recorded.items() if each not in ("pixels", "size")}
        return EnvSettings(self.name, self.size, {**rest, **self.parameters})

    def make(self, obs: str) -> World:
        """The world, with images where a model is to see them.

        Raises:
            UserError: for a size that cannot be rendered; and for a world of others that breaks a promise, which is
                looked at briefly.
        """
        try:
            env = make_world(self.name, pixels="pixels" in obs, size=self.size, **self.parameters)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            about = str(error)
            raise UserError(f"env.{about}" if about.startswith("size=") else f"env={self.name}: {about}") from None
        if self.name not in WORLDS.own:
            _check_briefly(env)
        return env


def _check_briefly(env: World) -> None:
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        check_world(env, steps=4)
    for doubt in doubts:
        print(f"warning: {doubt.message}", file=sys.stderr)
