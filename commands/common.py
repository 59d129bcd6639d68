"""What several commands share: the command that gives a run again, and what to do next."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from ..presets import suited
from ..registry import listed_plugins
from ..settings import by_key, shown

GROUPS = ("env", "obs", "planner", "energy", "objective")
"""What is chosen first: presets and groups say much of the rest."""


def command_line(command: str, settings: Any) -> str:
    """The command that gives these settings: what differs from the defaults, but for where it writes."""
    cls, now = type(settings), by_key(settings)
    chosen: dict[str, Any] = {}
    for key in GROUPS:
        if key in now and now[key] != by_key(suited(cls, chosen)).get(key):
            chosen[key] = now[key]
    usual = by_key(suited(cls, chosen))
    chosen |= {key: value for key, value in now.items() if key != "out" and value != usual.get(key)}
    return " ".join(["forearm", command, *(f"{key}={shown(value)}" for key, value in chosen.items())])


def told_next(env: str, *words: str) -> str:
    """What to do next, as a line that can be pasted: Forearm with these words, by itself or, where it does not know the
    environment, in the program that does."""
    from ..envs import WORLDS

    plugins = [word for plugin in listed_plugins() for word in ("--plugin", plugin)]
    if env in WORLDS.own or WORLDS.is_installed(env) or plugins:
        return f"next: forearm {shlex.join([*plugins, *words])}"
    program = sys.argv[0]
    if program.endswith(".py"):
        return f"next: python {shlex.join([program, *words])}"
    return f"next, in the program that registers env={env}: forearm.cli.main({list(words)})"
