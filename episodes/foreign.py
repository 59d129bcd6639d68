"""What a folder is that is no recording of Forearm's, told by the files that formats are known by."""

import json
from pathlib import Path

from ..folders import contents
from .manifest import RECORDING
from .store import DataError, episode_name

_MARKS = {
    "data/main_data.hdf5": "a Minari set",
    ".zgroup": "a Zarr store",
    "zarr.json": "a Zarr store",
    "dataset_info.json": "an RLDS set",
    "checkpoint/config.json": "a training run",
    "model.safetensors": "a checkpoint",
    "results.json": "what `forearm bench` or `demo` wrote",
}
_SUFFIXES = {".hdf5": "HDF5 files", ".h5": "HDF5 files", ".npz": "NumPy archives", ".zarr": "a Zarr store"}


def require_folder(folder: Path, advice: str = "") -> None:
    """DataError, with advice, where there is no such folder; and where it is a file."""
    if folder.is_file():
        raise DataError(f"{folder}: is a file; give the folder that `forearm record` wrote")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder{advice}")


def what_else(folder: Path) -> str | None:
    """What a folder is that is no recording of Forearm's, in words; None where it may be one."""
    if (folder / RECORDING).exists() or (folder / episode_name(0)).exists():
        return None
    if not (kind := _kind(folder)) and not contents(folder):
        return "is empty"
    return "is no recording of Forearm's" + (f" but {kind}" if kind else "")


def _kind(folder: Path) -> str | None:
    try:
        return f"a LeRobot set ({json.loads((folder / 'meta' / 'info.json').read_bytes())['codebase_version']})"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for mark, kind in _MARKS.items():
        if (folder / mark).exists():
            return kind
    suffixes = {path.suffix for pattern in ("*", "*/*") for path in folder.glob(pattern)}
    return next((kind for suffix, kind in _SUFFIXES.items() if suffix in suffixes), None)
