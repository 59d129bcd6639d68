"""Worlds by name: Forearm's own, those that a program registers, and those that installed packages add.

Nothing is ever imported because a data set or a checkpoint names it: a name is looked up here, or is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from multiprocessing import parent_process
from typing import Any

from ..errors import UserError
from ..registry import Registry, UnknownPartError
from .identity import fingerprint_as_made
from .world import World

MakeWorld = Callable[..., World]
"""Makes a world of `pixels: bool`, whether it observes images, `size: int`, their side, and any parameters of its own:
JSON values by keyword, on the command line env.KEY=VALUE."""

WORLDS: Registry[MakeWorld] = Registry("world", {}, key="env")
"""What makes each world. Recordings and checkpoints remember a world by its name here."""


def register(name: str, make: MakeWorld) -> None:
    """Makes `env=NAME` known to this process, and to those that recording spawns if this happens as the program's main
    module, or one that it imports, is imported: outside of `if __name__ == "__main__"`.

    Raises:
        ValueError: for a name that is taken, or that is no word.
    """
    WORLDS.add(name, make)


def world_names() -> list[str]:
    """All that `make_world` knows."""
    return list(WORLDS)


def parameters(name: str) -> dict[str, Any]:
    """What the maker of a world takes beside `pixels` and `size`: defaults by keyword, None where they are no plain
    values or there are none. Raises UserError as `make_world` does."""
    found = signature(_maker(name)).parameters.values()
    plain = (bool, int, float, str)
    return {
        key.name: key.default if isinstance(key.default, plain) else None
        for key in found
        if key.kind in (key.POSITIONAL_OR_KEYWORD, key.KEYWORD_ONLY) and key.name not in ("pixels", "size")
    }


def make_world(name: str, **config: Any) -> World:
    """The world of a name, with `pixels` and `size` as they are configured, and parameters of its own maker; these are
    in the world's `config` too, by which recordings and checkpoints remember them.

    Raises:
        UserError: naming the valid names, or both names where a world calls itself by another, or a parameter that it
            does not have or that it needs.
    """
    make = _maker(name)
    try:
        signature(make).bind(**config)
    except TypeError as error:
        takes = ", ".join(parameters(name)) or "nothing"
        raise UserError(f"env={name}: {error}; beside size it takes: {takes}") from None
    world = make(**config)
    if world.name != name:
        raise UserError(f"env={name}: its world has the name {world.name}; give both the same")
    world.config.update({key: value for key, value in config.items() if key not in ("pixels", "size")})
    fingerprint_as_made(world)  # before a reset changes its model
    return world


def _maker(name: str) -> MakeWorld:
    try:
        return WORLDS[name]
    except UnknownPartError:
        there = f"env={name} is unknown; choose one of: {', '.join(WORLDS)}"
        if parent_process() is not None:
            there = (
                f"env={name} is unknown to this worker process, which imports the program's main module only: "
                "register it there at top level, outside of `if __name__ == '__main__'`, or set workers=1"
            )
        raise UserError(there) from None
