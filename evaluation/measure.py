"""Entries on a manifest of goals: the table, and in a folder results, goals, plot, film and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..envs import World
from ..episodes.facts import WorldFacts
from ..episodes.progress import progress_bar
from ..errors import UserError
from ..folders import nothing_to_resume
from ..machine import machine
from ..memory import TOO_LARGE, in_memory, of, too_large
from ..models.checkpoint import Checkpoint
from ..settings import write_settings
from .bench import Entry, run_entry
from .closed_loop import run_episodes
from .controllers import LatentMPC
from .entries import make_entries
from .films import drawn, write_film
from .goals import GOALS, GoalManifest, find_goals
from .models import as_recorded, fits_world, load_model
from .plots import success_against_cost
from .report import write_report
from .results import Results, Row, failures, pool, write_results
from .settings import BenchSettings, DemoSettings

MEMORY = ("planner.search.samples", "episodes")
"""What decides how much memory planning takes."""


def planning_memory(settings: BenchSettings | DemoSettings) -> dict[str, int]:
    """The same, with its values, by the keys that lower it."""
    return {key.replace(".search", ""): value for key, value in of(settings, *MEMORY).items()}


def measure(
    settings: BenchSettings,
    env: World,
    manifest: GoalManifest,
    checkpoints: Sequence[Checkpoint],
    entries: Sequence[Entry],
    out: Path | None = None,
    command: str = "",
    spent: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Results:
    """Runs the entries. With `out`, writes results.json after each of them, and goals, plot, film
    and report there; `command` is what gives them again, `spent` are seconds that stages before took, told with them.
    """
    if out is not None:
        manifest.save(out / GOALS)
    facts = _facts(settings, env, manifest, checkpoints)
    rows: list[Row] = []
    shown = None
    begun = time.perf_counter()
    total = sum(entry.steps(manifest) for entry in entries)
    told = {"command": command, "facts": facts}
    with progress_bar(f"bench {env.name}", total, "steps", progress) as advance:
        for entry in entries:
            found, episodes = run_entry(env, manifest, settings.obs, entry, advance, settings.energy.box)
            rows += found
            if shown is None and entry.kind == "planner" and episodes is not None:
                shown = entry.name, episodes
            if out is not None:
                write_results(out / "results.json", rows, manifest.sha256, **told)
    seconds = {**(spent or {}), "bench": time.perf_counter() - begun}
    if out is not None:
        write_results(out / "results.json", rows, manifest.sha256, **told, seconds=seconds)
        video = None
        if shown and settings.video_episodes:
            name, episodes = shown
            path = out / f"{name.replace(' + ', '-')}.mp4"
            video = write_film(path, env, episodes, settings.video_episodes, name)
        measured = [row for row in rows if row.error is None]
        plot = drawn("plot", lambda: success_against_cost(pool(measured), out / "success.png"))
        facts["wall clock"] = ", ".join(f"{stage} {value / 60:.1f} min" for stage, value in seconds.items())
        write_report(
            out / "report.html",
            f"{env.name} from {settings.obs}",
            rows,
            images={"Success at the end against what one plan costs.": plot} if plot else {},
            videos=[video] if video else [],
            facts=facts,
            command=command,
            manifest=manifest.sha256,
            tolerance_cm=100 * manifest.tolerance,
        )
    return Results(manifest.sha256, rows, {"command": command, "facts": facts})


def run_bench(
    settings: BenchSettings,
    models: Sequence[Checkpoint] | None = None,
    out: Path | None = None,
    command: Callable[[BenchSettings], str] = lambda _: "",
    progress: bool = True,
) -> Results:
    """Measures what the settings list, on `models` or on those that `checkpoint` names; `command` tells what gives
    that again."""
    device = settings.use()
    with in_memory(planning_memory(settings)):
        if models is None:
            named = settings.checkpoint or (None,)
            models = [load_model(settings, each, device) for each in named] if settings.needs_model else []
        else:
            for checkpoint in models:
                checkpoint.require(settings.env.name, settings.obs)
        settings = as_recorded(settings, models)
        env = settings.env.make(settings.obs)
        for checkpoint, each in zip(models, settings.checkpoint or (None,), strict=False):
            fits_world(checkpoint, each, env)
        entries = make_entries(settings, env, models, device)
        manifest = find_goals(settings, env)
        if out is not None:
            write_settings(settings, out)
        with nothing_to_resume(settings.out):
            return measure(settings, env, manifest, models, entries, out, command(settings), progress=progress)


def require_all(results: Results, settings: BenchSettings) -> None:
    """UserError where rows failed, that says why."""
    if failed := failures(results.rows):
        advice = [too_large(planning_memory(settings))] if any(map(TOO_LARGE.search, failed)) else []
        raise UserError(f"{len(failed)} of {len(results.rows)} rows failed. " + "; ".join([*failed, *advice]))


def run_demo(settings: DemoSettings, out: Path) -> Results:
    """Runs one planner on each goal; writes results.json and the film into `out`."""
    device = settings.use()
    with in_memory(planning_memory(settings)):
        checkpoint = load_model(settings, settings.checkpoint, device)
        settings = as_recorded(settings, [checkpoint])
        env = settings.env.make(settings.obs)
        fits_world(checkpoint, settings.checkpoint, env)
        controller = LatentMPC(env, checkpoint, settings, device)
        manifest = find_goals(settings, env)
        write_settings(settings, out)
        total, name = len(manifest) * manifest.budget, settings.planner.name
        with nothing_to_resume(settings.out), progress_bar(f"demo {env.name}", total, "steps") as advance:
            episodes = run_episodes(env, manifest, controller, settings.seed, advance)
    row = Row.from_episodes(
        env=env.name,
        obs=settings.obs,
        planner=name,
        seed=settings.seed,
        success=episodes.success,
        reached=episodes.reached,
        plan_ms=[1e3 * seconds / len(manifest) for seconds in episodes.act_seconds],
        evaluations=episodes.mean_evaluations,
        final_distance_cm=100 * episodes.distance[:, -1],
        note=f"plan times amortised over {len(manifest)} arms planned together",
    )
    write_results(out / "results.json", [row], manifest.sha256)
    video = write_film(out / f"{env.name.replace('/', '-')}.mp4", env, episodes, len(manifest), name)
    return Results(manifest.sha256, [row], {"video": video and str(video)})


def _facts(
    settings: BenchSettings, env: World, manifest: GoalManifest, checkpoints: Sequence[Checkpoint]
) -> dict[str, str]:
    world = WorldFacts.of(env)
    facts = machine() | {
        "episodes": f"{manifest.budget} steps of {env.dt:g} s",
        "success": f"within {100 * manifest.tolerance:g} cm of the goal at each of the last {manifest.hold} steps",
        "model": "; ".join(checkpoint.told() for checkpoint in checkpoints) or "none",
        "world": world.told(),
        "trained in": "; ".join(dict.fromkeys(c.world(env.name).seen_from(world) for c in checkpoints)) or "-",
        "goals of": manifest.world.seen_from(world),
        "goals drawn": f"seed {manifest.seed}, {len(manifest)} of them",
    }
    if "prior" in settings.named:
        how = settings.prior_alone
        facts["prior"] = f"executes {how.execute_steps} of each answer's steps, temperature {how.temperature:g}"
    return facts
