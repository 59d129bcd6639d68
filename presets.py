"""Presets: what suits a task or an observation better than the general defaults (configs/presets.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from . import settings as kinds

S = TypeVar("S")


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Settings by dotted key, under what they are for: `env=reach`, or several such words."""
    import yaml

    return yaml.safe_load((files(f"{__package__}.configs") / "presets.yaml").read_text(encoding="utf-8"))


def suited(cls: type[S], given: Mapping[str, Any], env: str | None = None) -> S:
    """Settings of a class: what is `given`, by dotted key or as whole groups; of the rest what suits it, and defaults.

    `env` is the environment of what is learned from, for settings that name none.

    Raises:
        SettingError: see `settings.build`.
    """
    return kinds.build(cls, kinds.nested(with_presets(cls, given, env)))


def with_presets(cls: Any, given: Mapping[str, Any], env: str | None = None) -> dict[str, Any]:
    """What is given, by dotted key, and what presets add: nothing that is set, or that the class has not."""
    chosen = unnested(_opened(cls, given))
    now = ({"env": env} if env else {}) | chosen
    added: dict[str, Any] = {}
    # `now` grows: a preset may choose what another one is for.
    for condition, values in presets().items():
        if not all(_holds(cls, word, now) for word in condition.split()):
            continue
        for name, value in values.items():
            if not {name, name.split(".")[0]} & set(chosen) and _has(cls, name):
                now[name] = added[name] = value
    return added | chosen


def _opened(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Groups that are given as settings, and by dotted key as well, as mappings: what is dotted counts."""
    dotted = {name.partition(".")[0] for name in given if "." in name}
    found = dict(given)
    for name in dotted & given.keys():
        inner = kinds.kind_of(cls, name) if _has(cls, name) else None
        if inner is not None and kinds.is_dataclass(given[name]):
            whole = given[name] if isinstance(given[name], inner) else kinds.build(inner, {"name": given[name]})
            found[name] = kinds.tree(whole)
    return dict(sorted(found.items(), key=lambda item: "." in item[0]))


def unnested(given: Mapping[str, Any]) -> dict[str, Any]:
    """Groups that are given as mappings by their dotted keys; of `name`, the group's own."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            inner = kinds.flat(value, f"{name}.")
            found |= {key.removesuffix(".name"): each for key, each in inner.items()}
        else:
            found[name] = value
    return found


def _holds(cls: Any, word: str, now: Mapping[str, Any]) -> bool:
    """Whether KEY=VALUE is what is chosen `now`, or the default where nothing is."""
    name, value = word.split("=")
    first, _, rest = name.partition(".")
    if rest and kinds.is_dataclass(now.get(first)):
        return getattr(now[first], rest, None) == value
    if name in now:
        return getattr(now[name], "name", now[name]) == value
    node, default = cls, None
    for each in name.split("."):
        if node is None or each not in {own.name for own in kinds.fields(node)}:
            return False
        default, node = kinds.default_of(node, each), kinds.kind_of(node, each)
    return (node().name if node is not None else default) == value


def _has(cls: Any, name: str) -> bool:
    """Whether a class has a key, or a group that may have it."""
    first, _, rest = name.partition(".")
    if first not in {own.name for own in kinds.fields(cls)}:
        return False
    inner = kinds.kind_of(cls, first)
    if not rest or inner is None or hasattr(inner, "of_group"):
        return not rest or inner is not None
    return _has(inner, rest)
