"""Files that are either whole or not there: written beside their place, fsynced, then renamed into it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\..+)?")
"""Names of the temporary files, which a killed writer leaves behind."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on a clean exit it is fsynced and renamed to `path`.

    On an error the temporary file is removed and whatever was at `path` before is still there. The temporary name
    keeps the suffix, by which encoders choose their format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        _fsync(temporary, os.O_RDWR)
        os.replace(temporary, path)
        if os.name == "posix":  # the rename itself lasts only once the folder is on disk too
            with suppress(OSError):  # which not every file system can be asked for
                _fsync(path.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` so that a reader, or a crash at any instant, sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented UTF-8 JSON, atomically. Raises ValueError on NaN or infinity, which JSON has not."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, f"{text}\n".encode())


def _fsync(path: Path, access: int) -> None:
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
