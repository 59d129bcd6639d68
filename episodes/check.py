"""Is a folder of episodes whole? Every file that is not is named, with what is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..folders import contents
from .manifest import MANIFEST, RECORDING, Manifest, RecordRequest, read_recording
from .progress import progress_bar
from .store import DataError, Header, checksum, episode_name, leftovers, read_columns, read_header


@dataclass(frozen=True)
class Problem:
    file: str
    what: str


@dataclass(frozen=True)
class Report:
    """What a check found. `episodes` and `bytes` count the episode files that are there."""

    folder: Path
    problems: tuple[Problem, ...]
    episodes: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems

    def lines(self) -> list[str]:
        """A summary line, then a line a problem."""
        verdict = "all whole" if self.ok else f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        summary = f"{self.folder}: {self.episodes:,} episodes, {self.bytes / 1e6:,.1f} MB: {verdict}"
        return [summary, *(f"  {problem.file}: {problem.what}" for problem in self.problems)]


def check(folder: Path, progress: bool = False) -> Report:
    """Validates a folder: first every header, then every value. DataError if there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    problems: list[Problem] = []
    described = _described(folder, problems)
    if described is None:
        return Report(folder, tuple(problems), episodes=0, bytes=0)
    request = described.request if isinstance(described, Manifest) else described
    expected = [episode_name(index) for index in range(request.episodes)]
    problems += _strays(folder, {MANIFEST, RECORDING, *expected})

    whole: list[tuple[Path, Header]] = []
    for index, name in enumerate(expected):
        path = folder / name
        try:
            header = read_header(path)
        except DataError as error:
            problems.append(Problem(name, str(error).removeprefix(f"{path}: ")))
            continue
        problems += (Problem(name, what) for what in described.problems(index, header))
        if not header.problems(request.length):
            whole.append((path, header))

    sizes = [path.stat().st_size for path in (folder / name for name in expected) if path.exists()]
    with progress_bar(f"check {folder.name}", len(whole), "episodes", show=progress) as advance:
        for path, header in whole:
            problems += (Problem(path.name, what) for what in _wrong_content(path, header))
            advance(1)
    return Report(folder, tuple(problems), episodes=len(sizes), bytes=sum(sizes))


def _described(folder: Path, problems: list[Problem]) -> Manifest | RecordRequest | None:
    """What the folder should hold: by its manifest or, before there is one, by the request."""
    try:
        return Manifest.read(folder)
    except DataError as error:
        what = str(error).removeprefix(f"{folder / MANIFEST}: ")
    try:
        request, _ = read_recording(folder)
    except DataError:
        problems.append(Problem(MANIFEST, what))
        return None
    if what == "missing":
        what = "missing: the recording is not finished; the same `forearm record` command goes on with it"
    problems.append(Problem(MANIFEST, what))
    return request


def _strays(folder: Path, known: set[str]) -> Iterator[Problem]:
    for path in leftovers(folder):
        yield Problem(path.name, "left over by a recording that was killed; recording again removes it")
    for path in contents(folder):
        if path.name not in known:
            yield Problem(path.name, "foreign: not part of this recording")


def _wrong_content(path: Path, header: Header) -> Iterator[str]:
    try:
        columns = read_columns(path, header.columns)
    except DataError as error:
        yield str(error).removeprefix(f"{path}: ")
        return
    if checksum(columns) != header.checksum:
        yield "checksum mismatch: the content changed after it was recorded"
    for name, array in columns.items():
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            yield f"column '{name}' is NaN or infinite in {np.sum(~finite)} rows, first in row {np.argmin(finite)}"
        elif name == "action" and np.abs(array).max() > 1:
            yield f"column 'action' reaches {np.abs(array).max():.3g}, outside [-1, 1]"
