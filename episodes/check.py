"""Is a folder of episodes whole? Every file that is not is named, with what is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..folders import contents
from .foreign import require_folder, what_else
from .manifest import MANIFEST, RECORDING, Manifest, RecordRequest, read_recording
from .progress import progress_bar
from .store import DataError, Header, content_problems, episode_name, leftovers, read_columns, read_header


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

    @property
    def mendable(self) -> bool:
        """Whether it is a recording of Forearm's with problems."""
        return not self.ok and (self.folder / RECORDING).is_file()

    def lines(self) -> list[str]:
        """A summary line, then a line a problem."""
        verdict = "all whole" if self.ok else f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        summary = f"{self.folder}: {self.episodes:,} episodes, {self.bytes / 1e6:,.1f} MB: {verdict}"
        mend = "  to mend: the same `forearm record` command again records what is missing or damaged"
        lines = [f"  {problem.file}: {problem.what}" for problem in self.problems]
        return [summary, *lines, *([mend] if self.mendable else [])]


def check(folder: Path, progress: bool = False) -> Report:
    """Validates a folder: first every header, then every value. DataError if there is no such folder."""
    require_folder(folder)
    problems: list[Problem] = []
    described = _described(folder, problems)
    if described is None:
        return Report(folder, tuple(problems), episodes=0, bytes=0)
    request = described.request if isinstance(described, Manifest) else described
    expected = [episode_name(index) for index in range(request.episodes)]
    problems += _strays(folder, {MANIFEST, RECORDING, *expected})

    whole: list[tuple[Path, Header]] = []
    missing = [name for name in expected if not (folder / name).exists()]
    if missing:
        problems.append(Problem(missing[0], "missing" + f", and {len(missing) - 1:,} more" * (len(missing) > 1)))
    for index, name in enumerate(expected):
        path = folder / name
        if not path.exists():
            continue
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
        clocks: dict[str, np.ndarray] = {}
        for path, header in whole:
            try:
                columns = read_columns(path, header.columns)
            except DataError as error:
                problems.append(Problem(path.name, str(error).removeprefix(f"{path}: ")))
            else:
                problems += (Problem(path.name, what) for what in content_problems(columns, header.checksum))
                clocks[path.name] = columns["sim"][:, 0].copy()
            advance(1)
    problems += _clock_problems(clocks)
    return Report(folder, tuple(problems), episodes=len(sizes), bytes=sum(sizes))


def _described(folder: Path, problems: list[Problem]) -> Manifest | RecordRequest | None:
    """What the folder should hold: by its manifest or, before there is one, by the request."""
    try:
        return Manifest.read(folder)
    except DataError as error:
        what = str(error).removeprefix(f"{folder / MANIFEST}: ")
    try:
        request = read_recording(folder).request
    except DataError:
        problems.append(
            Problem(MANIFEST, what if (other := what_else(folder)) is None else f"{what}; the folder {other}")
        )
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


def _clock_problems(clocks: Mapping[str, np.ndarray]) -> Iterator[Problem]:
    """Episodes in which time stood still or went back, of the first number of every simulator state (T + 1,) by file:
    there the simulation was reset, as MuJoCo does by itself with one that diverges. That number is the time where most
    steps of the set raise it by the same amount, as in every simulation of MuJoCo's."""
    steps = {name: np.diff(clock) for name, clock in clocks.items()}
    every = np.concatenate([*steps.values(), np.zeros(0)])
    usual = float(np.median(every)) if len(every) else 0.0
    if not (usual > 0 and np.isclose(every, usual, rtol=1e-6, atol=0).mean() > 0.5):
        return
    for name, each in steps.items():
        if wrong := int((each <= 0).sum()):
            first = int(np.argmax(each <= 0))
            told = f"{wrong} of {len(each)} steps, first in step {first}"
            yield Problem(name, f"time does not rise in {told}: the simulation was reset")
