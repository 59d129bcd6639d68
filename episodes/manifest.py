"""What a recording was asked to be (`recording.json`, written first) and what it is (`manifest.json`, written last)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..folders import contents
from .facts import WorldFacts
from .store import Column, DataError, Header, Origin, episode_name, read_header, read_json, write_json

SCHEMA = 1
MANIFEST = "manifest.json"
RECORDING = "recording.json"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class RecordRequest:
    """A set of episodes to record. Episode i depends on `seed` and i only, whoever records it and when.

    env, config    what to make: `forearm.envs.make_world(env, **config)`; config is JSON
    policy         who acts: play, random, expert, whoever else the environment knows, or whom `record` is given
    policy_config  whatever else decides how it acts, JSON by key: of a planner its settings and its checkpoint's hash
    length         steps an episode; play ignores termination, so every episode has exactly as many
    val_fraction   share of the episodes held out for validation; at least one is
    """

    env: str
    policy: str = "play"
    seed: int = 0
    episodes: int = 1000
    length: int = 50
    config: Mapping[str, Any] = field(default_factory=dict)
    val_fraction: float = 0.05
    policy_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, least in {"seed": 0, "episodes": 2, "length": 1}.items():
            value = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise DataError(f"{key}={value}: must be a whole number, at least {least}")
        if not 0 < self.val_fraction < 1:
            raise DataError(f"val_fraction={self.val_fraction}: must be between 0 and 1")
        for key in ("config", "policy_config"):
            value = getattr(self, key)
            try:  # as it will be read back: a tuple becomes a list
                object.__setattr__(self, key, json.loads(json.dumps(dict(value))))
            except (TypeError, ValueError) as error:
                raise DataError(f"{key}={value}: cannot be written as JSON ({error})") from None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RecordRequest":
        value = {"policy_config": {}, **value}  # older recordings have none
        return cls(**{key.name: value[key.name] for key in fields(cls)})

    def split(self) -> dict[str, tuple[int, ...]]:
        """Episode indices by split: disjoint, sorted, a pure function of the request."""
        order = np.random.default_rng([self.seed, self.episodes]).permutation(self.episodes)
        held_out = min(max(1, round(self.val_fraction * self.episodes)), self.episodes - 1)
        train, val = sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())
        return {"train": tuple(train), "val": tuple(val)}

    def problems(self, index: int, header: Header) -> list[str]:
        """What keeps a file from being episode `index` of this request; empty if nothing."""
        expected = {"index": index} | {key: getattr(self, key) for key in ("env", "policy", "seed", "policy_config")}
        actual = {key: getattr(header.origin, key) for key in expected}
        return _differences(actual, expected) + header.problems(self.length)


@dataclass(frozen=True)
class Manifest:
    """A complete set of episodes. Written only when every file is there."""

    request: RecordRequest
    env_config: Mapping[str, Any]
    renderer: str
    versions: Mapping[str, str]
    columns: Mapping[str, Column]
    checksums: tuple[str, ...]
    split: Mapping[str, tuple[int, ...]]
    world: WorldFacts = field(default_factory=WorldFacts)

    @property
    def episodes(self) -> int:
        return self.request.episodes

    @property
    def length(self) -> int:
        """Steps an episode; it has one frame more."""
        return self.request.length

    @property
    def sha256(self) -> str:
        """Over every episode's content, in order: two sets with the same one are the same."""
        return hashlib.sha256(" ".join(self.checksums).encode()).hexdigest()

    @property
    def frames(self) -> int:
        return self.episodes * (self.length + 1)

    @classmethod
    def of(cls, folder: Path, request: RecordRequest) -> "Manifest":
        """Describes a finished recording; DataError names the first file that does not belong to it."""
        headers = [read_header(folder / episode_name(index)) for index in range(request.episodes)]
        first = headers[0]
        manifest = cls(
            request=request,
            env_config=first.origin.env_config,
            renderer=first.origin.renderer,
            versions=first.origin.versions,
            columns=first.columns,
            checksums=tuple(header.checksum for header in headers),
            split=request.split(),
            world=first.origin.world,
        )
        for index, header in enumerate(headers):
            if problems := manifest.problems(index, header):
                raise DataError(f"{folder / episode_name(index)}: {problems[0]}; delete this file and record again")
        return manifest

    def problems(self, index: int, header: Header) -> list[str]:
        """What keeps a file from being episode `index` of this set; empty if nothing."""
        expected = _facts(self, self.columns, self.checksums[index])
        actual = _facts(header.origin, header.columns, header.checksum)
        return self.request.problems(index, header) or _differences(actual, expected)

    def write(self, folder: Path) -> None:
        files = [
            {"file": episode_name(index), "steps": self.length, "checksum": checksum}
            for index, checksum in enumerate(self.checksums)
        ]
        about = {
            "schema": SCHEMA,
            **asdict(self.request),
            "env_config": self.env_config,
            "renderer": self.renderer,
            "versions": self.versions,
            "world": self.world.to_json(),
            "frames": self.frames,
            "columns": {name: asdict(column) for name, column in self.columns.items()},
            "split": self.split,
            "files": files,
        }
        write_json(folder / MANIFEST, about)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads a manifest; DataError if it is missing, not valid, or says two things at once."""
        path = folder / MANIFEST
        value = read_json(path)
        _same_schema(path, value)
        try:
            manifest = cls(
                request=RecordRequest.from_json(value),
                env_config=value["env_config"],
                renderer=value["renderer"],
                versions=value["versions"],
                columns={k: Column(v["dtype"], tuple(v["shape"])) for k, v in value["columns"].items()},
                checksums=tuple(file["checksum"] for file in value["files"]),
                split={name: tuple(value["split"][name]) for name in SPLITS},
                world=WorldFacts.from_json(value.get("world", {})),  # older recordings tell nothing
            )
            if [file["file"] for file in value["files"]] != [episode_name(i) for i in range(manifest.episodes)]:
                raise DataError(f"'files' does not list the {manifest.episodes} episodes in order")
            if sorted(manifest.split["train"] + manifest.split["val"]) != list(range(manifest.episodes)):
                raise DataError("'split' does not hold every episode exactly once")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a valid manifest ({type(error).__name__}: {error})") from None
        return manifest


class Begun(NamedTuple):
    """What a recording was begun with. Older ones do not tell their renderer, which is then empty, nor their world."""

    request: RecordRequest
    versions: Mapping[str, str]
    renderer: str = ""
    world: WorldFacts = WorldFacts()


def begun_before(folder: Path, request: RecordRequest) -> Begun | None:
    """What was begun here before, made sure to be the same request; None where nothing was.

    Raises:
        DataError: naming the key that differs, or what else the folder holds.
    """
    if not (folder / RECORDING).exists():
        if others := contents(folder):
            raise DataError(
                f"{folder}: holds '{others[0].name}' and no recording; record into an empty or a new folder"
            )
        return None
    found = read_recording(folder)
    before, wanted = asdict(found.request), asdict(request)
    for told in (before, wanted):
        told |= told.pop("policy_config")  # many keys, of which the one that differs is named
    for key in [*wanted, *before]:
        there, value = before.get(key), wanted.get(key)
        if there != value:
            raise DataError(
                f"{folder}: was recorded with {key}={there}, asked for is {key}={value}; nothing was overwritten. "
                f"Record into another folder, or ask for {key}={there}"
            )
    return found


def write_recording(folder: Path, begun: Begun) -> None:
    about = {"versions": begun.versions, "renderer": begun.renderer, "world": begun.world.to_json()}
    write_json(folder / RECORDING, {"schema": SCHEMA, **asdict(begun.request), **about})


def read_recording(folder: Path) -> Begun:
    path = folder / RECORDING
    value = read_json(path)
    _same_schema(path, value)
    try:
        world = WorldFacts.from_json(value.get("world", {}))
        return Begun(RecordRequest.from_json(value), dict(value["versions"]), value.get("renderer", ""), world)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a valid request ({type(error).__name__}: {error})") from None


def _same_schema(path: Path, value: Mapping[str, Any]) -> None:
    if value.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema is {value.get('schema')!r}; this version reads schema {SCHEMA}")


def _facts(source: "Manifest | Origin", columns: Mapping[str, Column], checksum: str) -> dict[str, Any]:
    shapes = {f"column '{name}'": f"{column.dtype} {column.shape}" for name, column in columns.items()}
    origin = {"env_config": source.env_config, "renderer": source.renderer.lower(), "versions": source.versions}
    world = {f"world.{key}": value for key, value in source.world.to_json().items()}
    return {**origin, **world, **shapes, "checksum": checksum}


def _differences(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*expected, *actual])
    return [
        f"{key} is {actual.get(key)!r}, not {expected.get(key)!r}"
        for key in keys
        if actual.get(key) != expected.get(key)
    ]
