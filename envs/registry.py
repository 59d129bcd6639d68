"""Worlds by name: Forearm's own, those that a program registers, and those that installed packages offer.

Nothing is ever imported because a data set or a checkpoint names it: a name is looked up here, or is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ..errors import UserError
from .identity import fingerprint_as_made
from .world import World

GROUP = "forearm.worlds"
"""The entry-point group in which a package offers worlds: `name = "module:function"`."""

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")

MakeWorld = Callable[..., World]
"""Makes a world of `pixels: bool`, whether it observes images, and `size: int`, their side."""

_registered: dict[str, MakeWorld] = {}


def register(name: str, make: MakeWorld) -> None:
    """Makes `env=NAME` known to this process, and to those that recording spawns if this happens as the program's main
    module, or one that it imports, is imported: outside of `if __name__ == "__main__"`.

    Raises:
        ValueError: for a name that is taken, or that is no word.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: must be words of letters, digits, dots and dashes, joined by slashes")
    if name in _registered:
        raise ValueError(f"name={name}: is registered already")
    _registered[name] = make


def world_names() -> list[str]:
    """All that `make_world` knows."""
    return [*_registered, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in _registered)]


def make_world(name: str, **config: Any) -> World:
    """The world of a name, with `pixels` and `size` as they are configured.

    Raises:
        UserError: naming the valid names, or both names where a world calls itself by another.
    """
    if name not in _registered:
        for entry in entry_points(group=GROUP, name=name):
            register(name, entry.load())
    if name not in _registered:
        raise UserError(f"env={name} is unknown; choose one of: {', '.join(world_names())}")
    world = _registered[name](**config)
    if world.name != name:
        raise UserError(f"env={name}: its world has the name {world.name}; give both the same")
    fingerprint_as_made(world)  # before a reset changes its model
    return world
