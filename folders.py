"""Folders that one process at a time writes to, and what is in them.

A lock says who writes. It is the operating system's, which ends with the process that holds it, however that ends; a
file system without such locks gets a lock file, which tells of a process that is gone by its number.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .errors import UserError

LOCK, LOCK_FILE = ".forearm.lock", ".forearm.lockfile"
SYSTEM = {"lost+found", "Thumbs.db", "desktop.ini"}
"""What file managers and file systems leave in a folder, beside hidden files."""
UNLOCKABLE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE}
"""Errors that are the disk's, whichever file met them."""
SOFT_SECONDS = 3.0  # to find out that whoever left a lock file is gone


class FolderError(UserError):
    """A folder cannot be written to, or somebody else writes to it."""


def contents(folder: Path) -> list[Path]:
    """What a folder holds, sorted, but for hidden files and those of the system."""
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name not in SYSTEM)


def check_free(folder: Path) -> None:
    """Makes sure that there is nothing at `folder`, or an empty folder.

    Raises:
        FolderError: naming what is in the way.
    """
    with _writable(folder, "choose another folder"):
        if folder.exists() and (not folder.is_dir() or contents(folder)):
            kind = "holds something already" if folder.is_dir() else "is a file"
            raise FolderError(f"out={folder}: {kind}, and nothing is overwritten; choose another folder")


@contextmanager
def owned(folder: Path, go_on: str = "choose another folder") -> Iterator[Path]:
    """Holds `folder`, which is made where it is not there, as long as the block runs; a folder that was made for a
    block that wrote nothing goes again. `go_on` says what to do after a write in the block has failed.

    Raises:
        FolderError: where another process holds it, or it cannot be written to, now or in the block.
    """
    made: list[Path] = []
    with _removing(made):
        with _writable(folder, "choose another folder"):
            if folder.is_symlink() and not folder.exists():
                raise FolderError(f"out={folder}: is a link to {os.readlink(folder)}, which is not there")
            _make(folder, made)
        with _held(folder, go_on):
            yield folder


@contextmanager
def new_folder(folder: Path, go_on: str = "choose another folder") -> Iterator[Path]:
    """Makes and holds a folder that nobody else has: `folder`, or `folder-2`, `folder-3`, … where that is there.

    Raises:
        FolderError: as `owned` does.
    """
    made: list[Path] = []
    with _removing(made):
        with _writable(folder, "give another folder as out=…"):
            _make(folder.parent, made)
            path = _numbered(folder)
            made.append(path)
        with _held(path, go_on):
            yield path


def _numbered(folder: Path) -> Path:
    """The first folder of that name, or with a number after it, that was not there and is now."""
    path, number = folder, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = folder.with_name(f"{folder.name}-{number}")


def _make(folder: Path, made: list[Path]) -> None:
    """Makes a folder and those above it; adds what was not there to `made`."""
    if not folder.parent.exists():
        _make(folder.parent, made)
    try:
        folder.mkdir()
        made.append(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


@contextmanager
def _removing(made: list[Path]) -> Iterator[None]:
    """Removes the folders that were `made` after the block, if they are empty."""
    try:
        yield
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _held(folder: Path, go_on: str) -> Iterator[None]:
    try:
        with _writable(folder, "choose another folder"):
            lock = _lock(folder)
    except Timeout:
        raise FolderError(f"out={folder}: another process writes to this folder; choose another one, or wait") from None
    try:
        with _writable(folder, go_on):
            yield
    finally:
        with suppress(OSError):  # whoever waits for this very file sees that it is gone, and makes another one
            os.unlink(lock.lock_file)
        with suppress(OSError):
            lock.release()


def _lock(folder: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / LOCK)
    try:
        with warnings.catch_warnings(action="ignore"):  # said below, in our words
            lock.acquire(timeout=0)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in UNLOCKABLE):
            raise
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock = SoftFileLock(folder / LOCK_FILE)
        lock.acquire(timeout=SOFT_SECONDS)
    if isinstance(lock, SoftFileLock):
        print(f"{folder}: its file system has no locks; a file, {Path(lock.lock_file).name}, is one", file=sys.stderr)
    return lock


@contextmanager
def _writable(folder: Path, go_on: str) -> Iterator[None]:
    """FolderError for errors that say that `folder` cannot be written to."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError | Timeout) or not (error.errno in FULL or _within(error, folder)):
            raise
        raise FolderError(f"out={folder}: cannot be written to ({error.strerror or error}); {go_on}") from error


def _within(error: OSError, folder: Path) -> bool:
    """Whether the file that an error names is the folder, in it, or above it."""
    if not isinstance(error.filename, str | Path):
        return False
    place, file = Path(os.path.abspath(folder)), Path(os.path.abspath(error.filename))
    return file.is_relative_to(place) or place.is_relative_to(file)


def stamped(name: str) -> str:
    """The name of a run's folder: when, and what."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{name.replace('/', '-')}"


@contextmanager
def run_folder(out: str | None, command: str, name: str, go_on: str = "choose another folder") -> Iterator[Path]:
    """The folder a run may write to, and nobody else as long as the block runs: `out`, or a new one under runs/COMMAND.
    Nothing there is ever overwritten. `go_on` says what to do after a write has failed.

    Raises:
        FolderError: if `out` holds something, is written to, or cannot be.
    """
    if out:
        folder = Path(out)
        check_free(folder)  # looks before it touches
        with owned(folder, go_on):
            check_free(folder)
            yield folder
    else:
        with new_folder(Path("runs") / command / stamped(name), go_on) as folder:
            yield folder


@contextmanager
def nothing_to_resume(out: str | None) -> Iterator[None]:
    """Ctrl-C in a run that cannot be gone on with says so where `out` would be in the way of a second one."""
    try:
        yield
    except KeyboardInterrupt:
        again = "run the same command with another out=…" if out else "run the same command again"
        raise KeyboardInterrupt(f"to start again, {again}") from None
