"""`forearm COMMAND --help`: the keys of a command, with their defaults and what they are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ..parts import registry
from ..presets import presets
from ..settings import Key, keys, shown
from . import PROG, Command
from .overrides import class_of, known_keys

CHOICES = {
    "env": "world",
    "planner": "planner",
    "planners": "planner",
    "energy": "energy",
    "objective": "objective",
    "model.encoder": "encoder",
    "model.predictor": "predictor",
    "checkpoint": "model",
}
"""Keys that name parts, and of which kind."""
WIDTH = 100
FIRST = ("env", "obs", "data", "checkpoint", "policy", "planner", "planners", "episodes", "record_episodes", "steps")
"""What comes first, of those that a command has."""


def command_help(command: Command, everything: bool = False) -> str:
    """What people set first; or every key, the settings of each planner and energy, and the presets."""
    module = command.load()
    cls = class_of(module.SETTINGS, {})
    whole = class_of(module.SETTINGS, getattr(module, "EVERYTHING", {}))
    known = known_keys(cls, {})
    shown_keys = [*known.values(), *(each for name, each in known_keys(whole, {}).items() if name not in known)]
    shown_keys.sort(key=lambda each: FIRST.index(each.name) if each.name in FIRST else len(FIRST))
    listed = shown_keys if everything else [each for each in shown_keys if each.first and each.name in known]
    lines = [f"usage: {PROG} {command.name} {getattr(module, 'ARGUMENTS', '[key=value ...]')}", ""]
    lines += [f"{command.summary[0].upper()}{command.summary[1:]}.", "", *_lines(listed)]
    if everything:
        lines += _variants(whole, {each.name for each in shown_keys}) + _presets({each.name for each in shown_keys})
    elif len(listed) < len(shown_keys):
        lines += ["", f"{len(shown_keys) - len(listed)} more: {PROG} {command.name} --help=all"]
    return "\n".join(lines)


def _lines(listed: Iterable[Key]) -> list[str]:
    """`key=default  what it is`, wrapped."""
    pairs = [(f"{each.name}={shown(each.default)}", _told(each)) for each in listed]
    width = min(30, max((len(setting) for setting, _ in pairs), default=0))
    lines = []
    for setting, told in pairs:
        first, *rest = textwrap.wrap(told, WIDTH - width - 4) or [""]
        if len(setting) > width:
            lines += [f"  {setting}", f"  {'':<{width}}  {first}".rstrip()]
        else:
            lines += [f"  {setting:<{width}}  {first}".rstrip()]
        lines += [f"  {'':<{width}}  {line}" for line in rest]
    return lines


def _told(key: Key) -> str:
    """What is told of a key, and the parts that are registered beside Forearm's own."""
    if key.name not in CHOICES:
        return key.told
    known = registry(CHOICES[key.name])
    mine = [name for name in known if name not in known.own]
    if key.name in ("planner", "energy", "objective") and len(known) > 1:
        return f"{key.told}: {', '.join(known)}".lstrip(": ")
    return f"{key.told}; also {', '.join(mine)}" if mine else key.told


def _variants(cls: type, shown_already: set[str]) -> list[str]:
    """What else each planner and each energy takes."""
    lines = []
    for group in ("planner", "energy"):
        if group not in shown_already:
            continue
        for name in registry(group):
            own = [each for each in keys(cls, {group: name}) if each.name.startswith(f"{group}.")]
            new = [each for each in own if each.name not in shown_already]
            if new:
                lines += ["", f"  with {group}={name}", *_lines(new)]
    return lines


def _presets(known: set[str]) -> list[str]:
    lines = []
    for condition, settings in presets().items():
        words = [f"{key}={shown(value)}" for key, value in settings.items() if key in known]
        if words and {word.split("=")[0] for word in condition.split()} <= known:
            told = f"with {condition}, unless set otherwise: {' '.join(words)}"
            lines += ["", *textwrap.wrap(told, WIDTH, initial_indent="  ", subsequent_indent="    ")]
    return lines
