"""One episode, one immutable safetensors file.

With T steps an episode holds the columns

    pixels   (T + 1, height, width, 3)  uint8     absent when recorded without pixels
    proprio  (T + 1, P)                 float32
    state    (T + 1, S)                 float32   privileged: object poses
    action   (T, A)                     float32   in [-1, 1]
    sim      (T + 1, F)                 float64   the simulator's full integration state

and in its header where it came from, so that a single file explains itself. No pickle anywhere.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import UserError
from ..files import TEMPORARY, write_atomic
from .facts import WorldFacts

FORMAT = 1
DTYPES = {"pixels": "uint8", "proprio": "float32", "state": "float32", "action": "float32", "sim": "float64"}
OPTIONAL = {"pixels", "proprio"}
OBS = ("pixels", "state", "pixels+proprio")
"""What a model may see: parts of an observation, joined by +."""

_DTYPE_NAMES = {"U8": "uint8", "F32": "float32", "F64": "float64"}
# One metadata key: safetensors writes several in random order, and the same episode should be the same bytes.
_KEY = "forearm"


class DataError(UserError, ValueError):
    """Recorded data, or a request for it, is not as it should be. The message names the file or key and what to do."""


@dataclass(frozen=True)
class Column:
    """The type and shape of one column of one episode."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Origin:
    """Where an episode came from: `(seed, index)`, whoever acted, the world and the versions are enough to record it
    again."""

    index: int
    env: str
    env_config: Mapping[str, Any]
    policy: str
    seed: int
    renderer: str
    versions: Mapping[str, str]
    policy_config: Mapping[str, Any] = field(default_factory=dict)
    world: WorldFacts = field(default_factory=WorldFacts)


@dataclass(frozen=True)
class Header:
    """What can be known of an episode without reading its content."""

    origin: Origin
    checksum: str
    columns: Mapping[str, Column]

    def problems(self, steps: int) -> list[str]:
        """What is wrong with the columns of an episode that should have `steps` steps; empty if nothing."""
        found = [f"column '{name}' is missing" for name in DTYPES.keys() - OPTIONAL - self.columns.keys()]
        for name, column in self.columns.items():
            if name not in DTYPES:
                found.append(f"column '{name}' is foreign (known: {', '.join(DTYPES)})")
                continue
            rows, rank = (steps if name == "action" else steps + 1), (4 if name == "pixels" else 2)
            if column.dtype != DTYPES[name]:
                found.append(f"column '{name}' is {column.dtype}, not {DTYPES[name]}")
            if len(column.shape) != rank or column.shape[0] != rows:
                found.append(f"column '{name}' has shape {column.shape}, not {rows} rows and {rank} dimensions")
        return sorted(found)


def episode_name(index: int) -> str:
    return f"episode-{index:06d}.safetensors"


def checksum(columns: Mapping[str, np.ndarray]) -> str:
    """A hash of names, types, shapes and content, in any order of the columns."""
    digest = blake2b(digest_size=16)
    for name, array in sorted(columns.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_episode(folder: Path, origin: Origin, columns: Mapping[str, np.ndarray]) -> Path:
    """Writes an episode, whole or not at all."""
    arrays = {name: np.ascontiguousarray(array) for name, array in columns.items()}
    about = {"format": FORMAT, **asdict(origin), "checksum": checksum(arrays)}
    about["world"] = origin.world.to_json()
    for key in ("policy_config", "world"):
        if not about[key]:
            del about[key]  # as in files from before there was any
    path = folder / episode_name(origin.index)
    write_atomic(path, save(arrays, {_KEY: json.dumps(about, sort_keys=True)}))
    return path


def read_header(path: Path) -> Header:
    """Reads a header; DataError if the file is missing, truncated or not an episode."""
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            columns = {
                name: Column(_DTYPE_NAMES.get(str(part.get_dtype()), str(part.get_dtype())), tuple(part.get_shape()))
                for name, part in slices.items()
            }
        if about.pop("format") != FORMAT:
            raise DataError(f"{path}: written in another format; this version reads format {FORMAT}")
        about["world"] = WorldFacts.from_json(about.get("world", {}))
        return Header(checksum=about.pop("checksum"), columns=columns, origin=Origin(**about))
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: truncated or corrupted ({error})") from None
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise DataError(f"{path}: foreign, not an episode that Forearm recorded") from None


def read_columns(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads the named columns; DataError if the file or one of them cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: truncated or corrupted ({error})") from None


def content_problems(columns: Mapping[str, np.ndarray], told: str) -> Iterator[str]:
    """What is wrong with the content of all columns of an episode, whose checksum is `told`."""
    if checksum(columns) != told:
        yield "checksum mismatch: the content changed after it was recorded"
    for name, array in columns.items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            yield f"column '{name}' is NaN or infinite in {np.sum(~finite)} rows, first in row {np.argmin(finite)}"
        elif name == "action" and np.abs(array).max() > 1:
            yield f"column 'action' reaches {np.abs(array).max():.3g}, outside [-1, 1]"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object, a line a key, so that long lists stay out of a reader's way."""
    lines = (f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items())
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; DataError if it is missing or is something else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a JSON {type(value).__name__}, not an object")
    return value


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of writers that were killed."""
    return sorted(path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))
