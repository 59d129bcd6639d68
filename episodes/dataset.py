"""Recorded sets of episodes, opened for reading: one, or several as one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from .facts import WorldFacts
from .foreign import require_folder, what_else
from .manifest import MANIFEST, SPLITS, Manifest
from .store import Column, DataError, content_problems, episode_name, read_columns, read_header


@dataclass(frozen=True)
class Dataset:
    """A complete, validated folder of episodes. Nothing is skipped: one bad header and it does not open."""

    folder: Path
    manifest: Manifest
    _verified: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Reads the manifest and every header. DataError names the first file that is missing or wrong."""
        advice = _advice(folder)
        require_folder(folder, f"; `forearm record out={folder}` makes one")
        if not (folder / MANIFEST).exists():
            if other := what_else(folder):
                raise DataError(f"{folder}: {other}")
            raise DataError(f"{folder}: no {MANIFEST}, so the recording is not complete; {advice}")
        try:
            manifest = Manifest.read(folder)
            for index in range(manifest.episodes):
                path = folder / episode_name(index)
                if problems := manifest.problems(index, read_header(path)):
                    raise DataError(f"{path}: {problems[0]}")
        except DataError as error:
            raise DataError(f"{error}; {advice}") from None
        return cls(folder, manifest)

    def load(self, split: str, columns: Iterable[str]) -> dict[str, np.ndarray]:
        """Loads columns of a split into memory: (E, T + 1, …) each, and (E, T, A) for `action`.

        Rows follow `manifest.split[split]`. DataError for an unknown split or column, or a file that cannot be read.
        """
        return Recordings((self,)).load(split, columns)

    def read(self, index: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Columns of an episode. The first time its whole content is verified, which costs about as much as reading it.

        Raises:
            DataError: naming the file, where it cannot be read or is not what was recorded.
        """
        path = self.folder / episode_name(index)
        if index in self._verified:
            return read_columns(path, names)
        columns = read_columns(path, self.manifest.columns)
        for problem in content_problems(columns, self.manifest.checksums[index]):
            raise DataError(f"{path}: {problem}; {_advice(self.folder)}")
        self._verified.add(index)
        return {name: columns[name] for name in names}


def _advice(folder: Path) -> str:
    return f"`forearm data check {folder}` lists all that is wrong"


@dataclass(frozen=True)
class Recordings:
    """Sets of episodes, learned from as one: the first set's episodes, then the next one's. What one of them holds out
    stays held out. Their environments may be several, whose actions and some of whose observations are of one shape."""

    parts: tuple[Dataset, ...]

    def __repr__(self) -> str:
        sets = ", ".join(f"{part.folder}: {part.manifest.episodes} episodes" for part in self.parts)
        return f"Recordings({sets})"

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "Recordings":
        """Opens one or more folders.

        Raises:
            DataError: naming the folder that is not whole, does not go with the first, or holds episodes of another's.
        """
        parts = tuple(Dataset.open(folder) for folder in folders)
        owners: dict[str, Path] = {}
        firsts: dict[str, Dataset] = {}
        for part in parts:
            for other in (parts[0], firsts.setdefault(part.manifest.request.env, part)):
                for fact, (own, first) in _facts(part, other).items():
                    if own != first:
                        raise DataError(f"data={part.folder}: its {fact} is {own}, that of {other.folder} {first}")
            checksums = part.manifest.checksums
            if twice := [checksum for checksum in checksums if checksum in owners]:
                raise DataError(
                    f"data={part.folder}: {len(twice)} of its episodes are in {owners[twice[0]]} too, and what one set "
                    "holds out must not be learned from in another; record with another seed"
                )
            owners |= dict.fromkeys(checksums, part.folder)
        return cls(parts)

    @property
    def envs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.manifest.request.env for part in self.parts))

    @property
    def worlds(self) -> dict[str, WorldFacts]:
        """What is told of each environment by the first set of it that tells anything."""
        told: dict[str, WorldFacts] = {}
        for part in self.parts:
            if told.get(part.manifest.request.env, WorldFacts()) == WorldFacts():
                told[part.manifest.request.env] = part.manifest.world
        return told

    @property
    def length(self) -> int:
        """Steps an episode."""
        return self.parts[0].manifest.length

    @property
    def frames(self) -> int:
        return sum(part.manifest.frames for part in self.parts)

    @property
    def columns(self) -> dict[str, Column]:
        """Those that every set has, of one shape."""
        first, *others = (part.manifest.columns for part in self.parts)
        return {name: column for name, column in first.items() if all(told.get(name) == column for told in others)}

    @property
    def sha256(self) -> str:
        """Over every episode's content, in order: that of the set, if there is one."""
        hashes = [part.manifest.sha256 for part in self.parts]
        return hashes[0] if len(hashes) == 1 else sha256(" ".join(hashes).encode()).hexdigest()

    @property
    def about(self) -> dict[str, Any]:
        """Where they came from; what differs from set to set is listed."""
        manifests = [part.manifest for part in self.parts]
        packages = dict.fromkeys(name for manifest in manifests for name in manifest.versions)
        worlds = {env: facts.to_json() for env, facts in self.worlds.items() if facts != WorldFacts()}
        return {
            **({"worlds": worlds} if worlds else {}),  # older recordings tell nothing
            "data": self.sha256,
            "frames": self.frames,
            "policy": _listed(manifest.request.policy for manifest in manifests),
            "renderer": _listed(manifest.renderer for manifest in manifests),
            "versions": {name: _listed(m.versions[name] for m in manifests if name in m.versions) for name in packages},
        }

    def load_tracked(self, split: str, tracked: Mapping[str, slice]) -> np.ndarray:
        """Loads the tracked points (E, T + 1, P), metres: of `state`, the columns that `tracked` has by environment."""
        states = ((part, part.load(split, ["state"])["state"]) for part in self.parts)
        return np.concatenate([state[..., tracked[part.manifest.request.env]] for part, state in states])

    def load(self, split: str, columns: Iterable[str]) -> dict[str, np.ndarray]:
        """Loads columns of a split of every set into memory, as `Dataset.load` does; those that are in `columns`."""
        if split not in SPLITS:
            raise DataError(f"split={split}: choose one of {', '.join(SPLITS)}")
        files = [(part, index) for part in self.parts for index in part.manifest.split[split]]
        arrays: dict[str, np.ndarray] = {}
        for name in columns:
            for part in self.parts:
                if name not in (known := part.manifest.columns):
                    raise DataError(f"{part.folder}: has no column '{name}'; choose from {', '.join(sorted(known))}")
            column = self.columns[name]
            arrays[name] = np.empty((len(files), *column.shape), column.dtype)
        for row, (part, index) in enumerate(files):
            for name, array in part.read(index, arrays).items():
                arrays[name][row] = array
        return arrays


def _facts(one: Dataset, other: Dataset) -> dict[str, tuple[Any, Any]]:
    """What two sets that are learned from as one have alike, by what to call it."""
    own, first = one.manifest, other.manifest
    shared = ["action"]  # of two environments; of one, all that both have
    if own.request.env == first.request.env:
        shared = sorted(own.columns.keys() & first.columns.keys())
    shapes = {f"shape of '{name}'": (own.columns[name].shape, first.columns[name].shape) for name in shared}
    worlds = own.world.differences(first.world) if own.request.env == first.request.env else {}
    return {"length": (own.length, first.length), **shapes, **worlds}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
