"""A recorded set of episodes, opened for reading."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .manifest import MANIFEST, SPLITS, Manifest
from .store import DataError, episode_name, read_columns, read_header


@dataclass(frozen=True)
class Dataset:
    """A complete, validated folder of episodes. Nothing is skipped: one bad header and it does not open."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Reads the manifest and every header. DataError names the first file that is missing or wrong."""
        advice = f"`forearm data check {folder}` lists all that is wrong"
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; `forearm record out={folder}` makes one")
        if not (folder / MANIFEST).exists():
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
        if split not in SPLITS:
            raise DataError(f"split={split}: choose one of {', '.join(SPLITS)}")
        indices = self.manifest.split[split]
        arrays: dict[str, np.ndarray] = {}
        for name in columns:
            if name not in self.manifest.columns:
                raise DataError(
                    f"{self.folder}: has no column '{name}'; choose from {', '.join(sorted(self.manifest.columns))}"
                )
            column = self.manifest.columns[name]
            arrays[name] = np.empty((len(indices), *column.shape), column.dtype)
        for row, index in enumerate(indices):
            for name, array in read_columns(self.folder / episode_name(index), arrays).items():
                arrays[name][row] = array
        return arrays
