"""`forearm quickstart`: record, train, bench, film, in one folder that can be gone on with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..envs import World
from ..episodes import Recordings, RecordRequest, record
from ..errors import UserError
from ..evaluation.controllers import check_members
from ..evaluation.entries import make_entries
from ..evaluation.goals import make_goals
from ..evaluation.measure import measure, planning_memory, require_all
from ..evaluation.settings import OWN, BenchSettings
from ..folders import check_free, new_folder, owned, stamped
from ..memory import in_memory, of
from ..presets import suited
from ..settings import CONFIG, SettingError, at_least, by_key, key, read_settings, subset, write_settings
from ..training.loop import SNAPSHOT
from ..training.run import learn
from ..training.settings import LearningSettings, TrainSettings
from .bench import tell
from .common import GROUPS, command_line

MAY_CHANGE = ("out", "workers", "device", "threads")
"""What a run may be gone on with in another way."""


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings(BenchSettings, LearningSettings):
    """All three steps."""

    record_episodes: int = key(2000, "episodes of play to learn from", first=True)
    workers: int = key(2, "processes that record")
    planners: tuple[str, ...] = key((OWN, "random", "zero", "expert", "oracle"), "as in `forearm bench`")
    seed: int = key(0, "of recording, training and goals", first=True)
    planner_seeds: tuple[int, ...] = (0,)
    checkpoint: tuple[str, ...] = ()
    goals: str | None = None
    ahead: int = 25
    energies: tuple[str, ...] = (OWN,)
    budgets: tuple[str, ...] = (OWN,)
    deadline: float = 0.0

    def __post_init__(self) -> None:
        LearningSettings.__post_init__(self)
        BenchSettings.__post_init__(self)
        at_least(self, record_episodes=2, workers=1)
        self.fit_into(RecordRequest.length)
        if "temporal" in self.energy.metric and not self.temporal.steps:
            raise SettingError(f"energy.metric={self.energy.metric}: needs temporal.steps, such as 2000")
        if self.energy.prior and not self.prior.steps:
            raise SettingError(f"energy.prior={self.energy.prior}: needs prior.steps, such as 8000")
        if "prior" in self.named:
            self.prior_alone.check(self.prior.segment)
        check_members(self.model.members, self.energy)


SETTINGS = QuickstartSettings


def run(given: Mapping[str, Any]) -> None:
    settings = suited(QuickstartSettings, given)
    device = settings.use()
    env = settings.env.make(settings.obs)
    for one in (one for tried in settings.tried.values() for one in tried):
        one.build([-1.0], [1.0], settings.model.chunk)  # what cannot be said of later steps is said now
    if settings.out:
        _check_folder(settings, Path(settings.out))  # looks before it touches
    where = (
        owned(Path(settings.out))
        if settings.out
        else new_folder(Path("runs/quickstart") / stamped(f"{env.name}-{settings.obs}"))
    )
    with where as out, in_memory(of(settings, "batch") | planning_memory(settings)):
        _check_folder(settings, out)
        _go(settings, env, device, out)


def _go(settings: QuickstartSettings, env: World, device: torch.device, out: Path) -> None:
    """Records, trains and benches in `out`, or goes on with what is there."""
    clock = [time.perf_counter()]
    fresh = not (out / "data").exists()
    write_settings(settings, out)
    command = command_line("quickstart", settings)
    try:
        print(f"1/3 record: {settings.record_episodes} episodes of play")
        request = RecordRequest(env.name, seed=settings.seed, episodes=settings.record_episodes, config=env.config)
        record(request, out / "data", workers=settings.workers, progress=True)
        clock.append(time.perf_counter())
        print(f"2/3 train: {settings.steps} steps on {device}")
        resume, data = (out / "train" / SNAPSHOT).exists(), str(out / "data")
        training = subset(TrainSettings, settings, data=(data,), out=str(out / "train"), resume=resume)
        with owned(out / "train"):  # which `forearm train resume=true` could go on with
            checkpoint = learn(training, Recordings.open([out / "data"]), out / "train", device)
        clock.append(time.perf_counter())
        print(f"3/3 bench: {settings.episodes} held-out goals")
        entries = make_entries(settings, env, [checkpoint], device)
        manifest = make_goals(env, settings.episodes, settings.seed)
        spent = {stage: clock[i + 1] - clock[i] for i, stage in enumerate(("recording", "training"))} if fresh else {}
        results = measure(settings, env, manifest, [checkpoint], entries, out / "bench", command, spent)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"to go on, {command} out={out}") from None
    tell(results, out / "bench")
    require_all(results, settings)
    print(f"done in {(time.perf_counter() - clock[0]) / 60:.1f} minutes: {out}")


def _check_folder(settings: QuickstartSettings, out: Path) -> None:
    """Makes sure that `out` is free, or an unfinished quickstart with the same settings.

    Raises:
        UserError: naming what is in the way, or the key and both values.
    """
    if not (out / CONFIG).is_file():
        check_free(out)
        return
    if (out / "bench" / "report.html").exists():
        raise UserError(f"out={out}: is finished and nothing is overwritten; choose another folder")
    now, before = by_key(settings), read_settings(out)
    for name in [*GROUPS, *now, *before]:  # what is chosen first says much of the rest
        if name not in MAY_CHANGE and now.get(name) != before.get(name):
            raise UserError(f"{name}={now.get(name)}: {out} was begun with {name}={before.get(name)}; keep it to go on")
