"""Parts by name: Forearm's own, those that a program registers, and those that plug-ins and installed packages offer.

A name in a config, a recording or a checkpoint is looked up here or is unknown: data never says what is imported. What
is imported beside Forearm is said by the user alone: `forearm --plugin FILE` (or the environment variable
`FOREARM_PLUGINS`), or by the entry points of packages that are installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import UserError

PLUGINS = "FOREARM_PLUGINS"
NAME = re.compile(r"\w[\w.+-]*(/\w[\w.-]*)*")
P = TypeVar("P")
Q = TypeVar("Q")


class Registry(Mapping[str, P], Generic[P]):
    """Parts of one kind by name, such as planners; `key` is what chooses one, by default its kind; `check`
    says what is wrong with a part that is added.

    A package offers parts by entry points in the group `forearm.KINDs`: `name = "module:part"`. A worker process that
    recording spawns knows them and the plug-ins, and what the program's main module registers as it is imported.
    """

    def __init__(
        self, kind: str, own: Mapping[str, P], key: str = "", check: Callable[[Any], str | None] = lambda part: None
    ) -> None:
        self.check = check
        self.kind, self.group, self.key = kind, f"forearm.{kind}s", key or kind
        self.parts: dict[str, P] = dict(own)
        self.own = frozenset(own)
        """Names of the parts that come with Forearm."""

    def register(self, name: str) -> Callable[[Q], Q]:
        """A decorator that makes a part known by a name.

        Raises:
            PartError: for a name that is taken, or that is no word, and for what cannot be such a part.
        """

        def add(part: Q) -> Q:
            self.add(name, part)
            return part

        return add

    def add(self, name: str, part: Any) -> None:
        """Makes a part known by a name; raises as `register` does."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PartError(f"name={name!r}: must be words of letters, digits, dots and dashes, joined by slashes")
        if name in self.parts:
            raise PartError(f"name={name}: is registered already")
        if wrong := self.check(part):
            raise PartError(f"{self.kind}={name}: {wrong}")
        self.parts[name] = part

    def name_of(self, part: Any) -> str:
        """The name that a part is known by; of one that is not registered, its own."""
        return next((name for name, known in self.parts.items() if known is part), getattr(part, "__name__", str(part)))

    def is_installed(self, name: str) -> bool:
        """Whether an installed package offers it, so that every process knows it."""
        return bool(entry_points(group=self.group, name=name))

    def __getitem__(self, name: str) -> P:
        """Raises UnknownPartError, which is a KeyError as well, naming those that there are."""
        if name not in self.parts:
            load_plugins()
        if name not in self.parts:
            for entry in entry_points(group=self.group, name=name):
                self.add(name, entry.load())
        if name not in self.parts:
            raise UnknownPartError(f"{self.key}={name} is unknown; choose one of: {', '.join(self)}")
        return self.parts[name]

    def names(self) -> list[str]:
        """Of all parts, Forearm's own first."""
        load_plugins()
        installed = sorted(entry.name for entry in entry_points(group=self.group))
        return [*self.parts, *(name for name in installed if name not in self.parts)]

    def __contains__(self, name: object) -> bool:
        return name in self.parts or name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


class PartError(UserError, ValueError):
    """A part cannot be registered."""


class UnknownPartError(PartError, KeyError):
    """No part has this name."""

    __str__ = Exception.__str__


_loaded: set[str] = set()


def load_plugins() -> None:
    """Imports each file or module that `FOREARM_PLUGINS` lists, once; what they register is then known.

    Raises:
        UserError: for one that is not there, or that raises.
    """
    for plugin in listed_plugins():
        if plugin not in _loaded:
            _loaded.add(plugin)
            _import(plugin)


def listed_plugins() -> list[str]:
    """The files and modules that `FOREARM_PLUGINS` lists."""
    return [each for each in map(str.strip, os.environ.get(PLUGINS, "").split(os.pathsep)) if each]


def add_plugin(plugin: str) -> None:
    """Has a file or a module imported, here and in the worker processes."""
    plugin = str(Path(plugin).resolve()) if plugin.endswith(".py") else plugin
    os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([*listed_plugins(), plugin]))


def _import(plugin: str) -> None:
    try:
        if not plugin.endswith(".py"):
            import_module(plugin)
            return
        if not Path(plugin).is_file():
            raise UserError(f"plugin={plugin}: there is no such file")
        name = f"forearm_plugin_{Path(plugin).stem}"
        spec = importlib.util.spec_from_file_location(name, plugin)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"plugin={plugin}: cannot be imported ({type(error).__name__}: {error})") from error
