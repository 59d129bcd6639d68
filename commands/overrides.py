"""What was typed, as settings are given: `key=value` by Hydra's grammar, each checked against the keys there are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_origin

from ..errors import UserError
from ..presets import with_presets
from ..settings import RENAMED, Key, SettingError, fitted, keys, wanted
from . import PROG

Class = type | Callable[[Mapping[str, Any]], type]
"""The class of a command's settings, or what it is for what is given."""


def parse(words: Sequence[str], settings: Class) -> dict[str, Any]:
    """What words `key=value` give, by dotted key.

    Raises:
        UserError: for what is no such word, an unknown key, or a value of another type than the key's.
    """
    typed = _typed(words)
    cls = class_of(settings, {name: texts[-1] for name, texts in typed.items()})
    known = known_keys(cls, typed)
    typed = _once(typed, known)
    given: dict[str, Any] = {}
    for name, (text,) in typed.items():
        if name not in known:
            raise _no_such_key(name, text, known)
        given[name] = _value(name, text, known[name])
    return given


def class_of(settings: Class, given: Mapping[str, Any]) -> type:
    return settings if isinstance(settings, type) else settings(given)


def known_keys(cls: Any, typed: Mapping[str, list[str]]) -> dict[str, Key]:
    """The keys of a class by name, with those of the variants that are chosen: typed, or by a preset."""
    last = {name: texts[-1] for name, texts in typed.items()}
    chosen = {name: str(value) for name, value in with_presets(cls, last).items() if "." not in name}
    chosen = {name: value for name, value in chosen.items() if "," not in value}  # `_value` says no to several
    return {each.name: each for each in keys(cls, chosen)}


def _typed(words: Sequence[str]) -> dict[str, list[str]]:
    """Values by key, as they were typed, in the order of their last ones."""
    typed: dict[str, list[str]] = {}
    for word in words:
        name, found, text = word.partition("=")
        if not found or not name.replace(".", "").replace("_", "").isalnum():
            raise UserError(f"'{word}' is not of the form key=value; {PROG} --help lists the commands")
        typed[name] = [*typed.pop(name, []), text]
    return typed


def _once(typed: Mapping[str, list[str]], known: Mapping[str, Key]) -> dict[str, list[str]]:
    """Of a key that is given twice the last value counts, with a word about it.

    Raises:
        UserError: for a list that is given twice, for both will have been meant.
    """
    for name, texts in typed.items():
        for before in [text for text in texts[:-1] if text != texts[-1]]:
            if name in known and get_origin(known[name].hint) is tuple:
                raise UserError(
                    f"{name} is given twice, as {name}={before} and {name}={texts[-1]}; give one list, {name}=[…,…]"
                )
            print(f"{PROG}: {name}={texts[-1]} counts, not the {name}={before} before it", file=sys.stderr)
    return {name: texts[-1:] for name, texts in typed.items()}


def _value(name: str, text: str, key: Key) -> Any:
    """A value by its key's kind: words and paths are taken as they are, Hydra's grammar reads the rest."""
    kinds = get_args(key.hint) if get_origin(key.hint) is not tuple else ()
    try:
        if text == "null":
            if NoneType not in kinds and key.hint is not Any:
                raise SettingError(name)
            return None
        if key.path and get_origin(key.hint) is tuple:
            value: Any = _paths(text)
        elif key.hint is str or str in kinds:
            if key.hint is str and not key.path and "," in text:  # no one name has a comma
                raise SettingError(name)
            value = _path(text) if key.path else text
        else:
            override = hydra_override(f"{name}={text}")
            if override.is_sweep_override():
                raise SettingError(name)
            value = override.value()
        if key.path and isinstance(value, list) and not all(value):
            raise SettingError(name)
        return fitted(name, value, key.hint, key.default)
    except SettingError:
        several = len(text.split(",")) > 1 and text[:1] not in "[{" and get_origin(key.hint) is not tuple
        each = f"; --multirun runs once for each of {' '.join(text.split(','))}" if several else ""
        kind = wanted(key.hint, key.default)
        kind = kind.replace("a word", "a path") if key.path else kind
        raise UserError(f"{name}={text}: must be {kind}{each}") from None


def hydra_override(text: str) -> Any:
    """An override as Hydra's grammar reads it. SettingError, in its words, for what it does not know."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise SettingError(str(error)) from None


def _no_such_key(name: str, text: str, known: Mapping[str, Key]) -> UserError:
    owner = name.rpartition(".")[0]
    there = [key for key in known if key.startswith(f"{owner}.")] if owner else []
    there = there or list(known)
    if name in RENAMED:
        return UserError(f"{name}={text}: this key is now {RENAMED[name]}")
    near = get_close_matches(name, there, 1, 0.75) or get_close_matches(name, known, 1, 0.75)
    hint = f"; did you mean {near[0]}?" if near else "."
    return UserError(f"{name}={text}: there is no key '{name}'{hint} There are: {', '.join(there)}")


def _path(text: str) -> str:
    """A path as it is meant: without the quotes around it, and with a home for its ~."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return os.path.expanduser(text[1:-1] if quoted else text)


def _paths(text: str) -> list[str]:
    """One path, or [A, B]: blanks around them and quotes go."""
    if text[:1] + text[-1:] != "[]":
        return [_path(text)]
    words = re.findall(r"""\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", text[1:-1])
    return [_path(word) for word in words[:-1]] if text[1:-1].strip() else []  # the last one is the end of the text


@contextmanager
def own_hydra() -> Iterator[None]:
    """Lets Hydra be initialised in here, and leaves it as the program that called us had it."""
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before
