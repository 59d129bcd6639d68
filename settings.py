"""Settings: frozen dataclasses, filled in one way by Python, presets and the command line.

A field made by `key` is a key of the command line; another one is for Python alone. A field that is itself settings is
a group, `planner.samples`. A class checks its own fields in `__post_init__`, by the checks below; `build` checks names
and types, and puts the group's name before whatever is wrong.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UserError
from .files import write_atomic

S = TypeVar("S")


class SettingError(UserError, ValueError):
    """A setting does not exist, or cannot have its value; the message begins with `key=value`."""


def key(default: Any, told: str, *, first: bool = False, path: bool = False) -> Any:
    """A dataclass field that the command line has too, with what `--help` tells of it.

    `first` keys are what people set first; a `path` is taken as it is typed, ~ for home. Of a group, the default is its
    class.
    """
    metadata = {"told": told, "first": first, "path": path}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Key:
    """One key of the command line: its dotted name, default, what is told of it, and of which kind it is."""

    name: str
    default: Any
    told: str
    hint: Any = str
    first: bool = False
    path: bool = False


# Checks, for `__post_init__`.


def at_least(settings: Any, **least: float) -> None:
    """Makes sure that fields are not too small; of several values, each."""
    for name, smallest in least.items():
        value = getattr(settings, name)
        if not min(value if isinstance(value, tuple) else [value], default=smallest) >= smallest:
            raise SettingError(f"{name}={shown(value)}: must be at least {smallest}")


def within(settings: Any, low: float, high: float, *names: str, why: str = "") -> None:
    """Makes sure that fields lie in low … high."""
    for name in names:
        if not low <= (value := getattr(settings, name)) <= high:
            raise SettingError(f"{name}={shown(value)}: must lie in {low} … {high}{why and f'; {why}'}")


def positive(settings: Any, *names: str, why: str = "") -> None:
    for name in names:
        if not (value := getattr(settings, name)) > 0:
            raise SettingError(f"{name}={shown(value)}: must be positive{why}")


def not_negative(settings: Any, *names: str, why: str = "") -> None:
    for name in names:
        if not (value := getattr(settings, name)) >= 0:
            raise SettingError(f"{name}={shown(value)}: must not be negative{why}")


def one_of(settings: Any, **choices: Iterable[str]) -> None:
    """Makes sure that fields name what exists; of several names, each."""
    for name, known in choices.items():
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else [value]:
            if each not in known:
                raise unknown(name, each, known)


def unknown(name: str, value: Any, known: Iterable[str]) -> SettingError:
    return SettingError(f"{name}={shown(value)} is unknown; choose one of: {', '.join(known)}")


def once(name: str, words: Sequence[Any], meant: Sequence[Any] | None = None) -> None:
    """Makes sure that no word of a list is there twice, nor two that mean the same: the same trial twice is not two."""
    meant = words if meant is None else meant
    for i, word in enumerate(words):
        if meant[i] in meant[:i]:
            raise SettingError(
                f"{name}={shown(tuple(words))}: {word} is there already; the same trial twice is not two"
            )


# Filling.


def build(cls: type[S], given: Mapping[str, Any], group: str = "") -> S:
    """Settings of a class from what is given: by field, groups as mappings of their own or as settings already.

    Raises:
        SettingError: naming the dotted key and its value, and what it may be.
    """
    if hasattr(cls, "of_group"):  # whose fields depend on what is chosen
        with prefixed(group):
            return cls.of_group(given)  # pyright: ignore[reportAttributeAccessIssue]
    hints, known = types_of(cls), [each.name for each in fields(cls)]  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise no_such_key(f"{group}{name}", value, known, group[:-1])
        inner = kind_of(cls, name)
        if inner is not None and not isinstance(value, inner):
            if not isinstance(value, Mapping):
                if not (hasattr(inner, "name") or hasattr(inner, "of_group")) or value is None:
                    raise SettingError(
                        f"{group}{name}={shown(value)}: must be {inner.__name__}, or a mapping of its keys"
                    )
                value = {"name": value}
            values[name] = build(inner, value, f"{group}{name}.")
        else:
            with prefixed(group):
                values[name] = value if inner is not None else fitted(name, value, hints[name], default_of(cls, name))
    with prefixed(group):
        return cls(**values)


def no_such_key(name: str, value: Any, known: Iterable[str], owner: str) -> SettingError:
    known, leaf = list(known), name.rpartition(".")[2]
    near = get_close_matches(leaf, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    has = f"{owner or 'there'} " + ("has" if owner else "is")
    return SettingError(f"{name}={shown(value)}: {has} no key '{name}'{hint} Known: {', '.join(known)}")


@contextmanager
def prefixed(group: str) -> Iterator[None]:
    """Puts a group's name before the key that a check names; a plain ValueError, of a part's own checks, too."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, UserError) and not isinstance(error, SettingError):
            raise
        about = str(error)
        chosen = group and about.startswith("name=")  # of a group, which is chosen by its own key
        raise SettingError(f"{group[:-1]}{about[4:]}" if chosen else f"{group}{about}") from None


def fitted(name: str, value: Any, hint: Any, default: Any = MISSING) -> Any:
    """A value as its type has it: whole numbers do for numbers, and lists become tuples.

    Raises:
        SettingError: saying of what kind it must be.
    """
    for kind in _kinds(hint):
        with suppress(SettingError):
            return _as_kind(name, value, kind, default)
    raise SettingError(f"{name}={shown(value)}: must be {wanted(hint, default)}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one that it is."""
    return get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)


def _as_kind(name: str, value: Any, kind: Any, default: Any) -> Any:
    """A value as one type has it; SettingError where it is of another."""
    number = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's too
    if kind is Any or (kind in (None, types.NoneType) and value is None):
        return value
    if kind is float and number and (math.isfinite(value) or value == default):
        return float(value)
    if kind is int and number and isinstance(value, Integral):
        return int(value)
    if kind is str and isinstance(value, str | Path) and (str(value) or default == ""):
        return str(value)
    if kind is bool and isinstance(value, bool):
        return value
    if get_origin(kind) is tuple and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(fitted(name, item, get_args(kind)[0]) for item in value)
    plain = (bool, int, float, str, tuple, types.NoneType)
    if isinstance(origin := get_origin(kind) or kind, type) and origin not in plain and isinstance(value, origin):
        return value
    raise SettingError(name)


def wanted(hint: Any, default: Any = MISSING) -> str:
    """A kind of value in words."""
    if get_origin(hint) is tuple:
        return f"a list like {shown(default)}" if default else "a path, or several as [A,B]"
    if len(kinds := _kinds(hint)) > 1:
        rest = " or ".join(wanted(kind) for kind in kinds if kind is not types.NoneType)
        return f"{rest}, or null"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}.get(hint, "another value")


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, tuple | list):
        return f"[{','.join(map(shown, value))}]"
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))


# Looking at settings.


@cache
def types_of(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def kind_of(cls: Any, name: str) -> type | None:
    """The class of a field that is a group; None of one that is a value."""
    kind = types_of(cls)[name]
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def default_of(cls: Any, name: str) -> Any:
    (own,) = (each for each in fields(cls) if each.name == name)
    return own.default


def key_of(cls: Any, own: dataclasses.Field[Any]) -> Key:
    """The key that a field is; of one that no `key` made, nothing is told."""
    told = {"told": "", "first": False, "path": False, **own.metadata}
    return Key(own.name, own.default, told["told"], types_of(cls)[own.name], told["first"], told["path"])


def keys(cls: Any, chosen: Mapping[str, str] | None = None) -> list[Key]:
    """The keys of a class and of its groups, in order; `chosen` names what is chosen of a group that has variants."""
    found: list[Key] = []
    for own in fields(cls):
        if "told" not in own.metadata:
            continue
        told, name = own.metadata, own.name
        inner = kind_of(cls, own.name)
        if inner is None:
            found.append(key_of(cls, own))
            continue
        default = own.default_factory() if own.default_factory is not MISSING else own.default
        if hasattr(default, "name"):
            found.append(Key(name, default.name, told["told"], str, told["first"]))
        variants = getattr(inner, "keys_of", None)
        name_now = (chosen or {}).get(name, getattr(default, "name", None))
        of_default = variants(name_now) if variants else keys(inner)
        for each in of_default:
            value = getattr(default, each.name, each.default) if not variants else each.default
            about = f"{told['told']}: {each.told}" if each.name == "steps" else each.told  # of a stage
            found.append(dataclasses.replace(each, name=f"{name}.{each.name}", default=value, told=about))
    return [each for each in found if not each.name.endswith(".name")]


def tree(settings: Any) -> dict[str, Any]:
    """Settings as plain nested values, as YAML has them."""
    if hasattr(settings, "as_group"):
        return {name: tree(value) for name, value in settings.as_group().items()}
    if is_dataclass(settings):
        return {each.name: tree(getattr(settings, each.name)) for each in fields(settings)}
    if isinstance(settings, Mapping):
        return {str(name): tree(value) for name, value in settings.items()}
    if isinstance(settings, tuple | list):
        return [tree(value) for value in settings]  # pyright: ignore[reportReturnType]
    return settings


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def by_key(given: Any) -> dict[str, Any]:
    """Settings, or a mapping of them with groups as settings or mappings, by the dotted keys of the command line."""
    return {name.removesuffix(".name"): value for name, value in flat(tree(given)).items()}


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested values; `planner=mppi` beside `planner.samples=64` is the group's name."""
    found: dict[str, Any] = {}
    for name, value in dotted.items():
        *owners, leaf = name.split(".")
        node = found
        for owner in owners:
            inner = node.get(owner)
            node[owner] = inner if isinstance(inner, dict) else ({} if inner is None else {"name": inner})
            node = node[owner]
        if isinstance(node.get(leaf), dict) and not isinstance(value, Mapping):
            node[leaf]["name"] = value
        else:
            node[leaf] = value
    return found


def subset(cls: type[S], settings: Any, **changes: Any) -> S:
    """Settings of a class whose fields another one has too."""
    held = {each.name: getattr(settings, each.name) for each in fields(cls) if hasattr(settings, each.name)}  # pyright: ignore[reportArgumentType]
    return cls(**held | changes)


CONFIG = "config.yaml"
RENAMED = {
    "world": "frozen",
    "planner.rest": "planner.prior_stop",
    "planner.stay": "planner.hold",
    "planner.enough": "planner.replan_above",
    "energy.haste": "energy.time_penalty",
    "energy.saturate": "energy.clip",
    "energy.weights.control": "energy.control",
    "energy.weights.let_go": "energy.release",
    "energy.weights.prior": "energy.prior",
    "energy.weights.keep_out": "energy.keep_out_weight",
}
"""Keys of Forearm 0.1, and what they are called now."""


def write_settings(settings: Any, folder: Path) -> None:
    """Writes `config.yaml`: every setting, whether it is a key or not."""
    import yaml

    write_atomic(folder / CONFIG, yaml.safe_dump(tree(settings), sort_keys=False, allow_unicode=True).encode())


def read_settings(folder: Path) -> dict[str, Any]:
    """What `config.yaml` says, by dotted key, under today's names; groups by theirs, as they are given."""
    import yaml

    held = by_key(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))
    return {RENAMED.get(name, name): value for name, value in held.items()}
