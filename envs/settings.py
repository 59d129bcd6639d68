"""Which world to make, and what to record in it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..episodes.store import OBS
from ..errors import UserError
from ..settings import Key, SettingError, at_least, fitted, key, no_such_key, one_of, unknown
from .check import check_world
from .registry import WORLDS, make_world, parameters
from .world import World

PLANNER = "planner"
"""The policy that is no environment's own: a planner on a learned model."""


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
        if not isinstance(name, str) or name not in WORLDS:
            raise unknown("name", name, WORLDS)
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


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """What to record, and who acts."""

    env: EnvSettings = key(EnvSettings, "where: reach, push, pickplace, stack, drawer, or another world", first=True)
    obs: str = key("pixels", "pixels (images, proprio and state), or state (no images, no OpenGL needed)", first=True)
    policy: str = key("play", "play (noisy skills, misses on purpose), random, expert, planner", first=True)
    episodes: int = key(2000, "how many", first=True)
    length: int = key(50, "environment steps an episode, 10 a second")
    seed: int = key(0, "another one for each recording: the same seed starts the same episodes", first=True)
    workers: int = key(2, "processes", first=True)
    out: str | None = key(None, "folder to write; null: data/ENV-OBS-POLICY", first=True, path=True)

    def __post_init__(self) -> None:
        one_of(self, obs=OBS)
        at_least(self, workers=1)


def _check_briefly(env: World) -> None:
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        check_world(env, steps=4)
    for doubt in doubts:
        print(f"warning: {doubt.message}", file=sys.stderr)
