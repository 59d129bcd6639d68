"""`forearm bench`: planners on one manifest of held-out goals; table, plot, film and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..cli import as_dict, compose
from ..errors import UserError
from .common import load_checkpoint, make_env, make_planner, run_folder, setup_device

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import ArmEnv
    from ..evaluation.bench import Entry
    from ..evaluation.goals import GoalManifest
    from ..evaluation.results import Row
    from ..models.checkpoint import Checkpoint


def run(config: DictConfig) -> None:
    device = setup_device(config)
    checkpoint = load_checkpoint(config, device)
    env = make_env(config)
    entries = make_entries(config, env, checkpoint, device)
    manifest = load_goals(config, env)
    out = run_folder(config, "bench", f"{env.name}-{config.obs}")
    command = f"forearm bench env={env.name} obs={config.obs} planners=[{','.join(config.planners)}]"
    measure(config, env, manifest, entries, out, command)


def load_goals(config: DictConfig, env: ArmEnv) -> GoalManifest:
    """The manifest that `goals` names, cut to `episodes`; or a new one of `episodes` goals.

    Raises:
        UserError: for a manifest of another environment.
    """
    from ..evaluation.goals import GoalManifest, make_goals

    if config.episodes < 1:
        raise UserError(f"episodes={config.episodes}: must be at least 1")
    if not config.goals:
        return make_goals(env, config.episodes, config.seed)
    manifest = GoalManifest.load(Path(config.goals))
    if manifest.env != env.name or manifest.start.shape[1:] != env.save_state().shape:
        raise UserError(f"goals={config.goals}: were made for env={manifest.env}, not for this env={env.name}")
    return manifest if len(manifest) <= config.episodes else manifest.first(config.episodes)


def make_entries(config: DictConfig, env: ArmEnv, checkpoint: Checkpoint, device: torch.device) -> list[Entry]:
    """The planners that a config lists, floors and ceilings among them.

    Raises:
        UserError: for a name that does not exist, or settings that a planner cannot take.
    """
    from ..evaluation.bench import Entry
    from ..evaluation.controllers import Expert, Imagination, Oracle, Random, Zero
    from ..planner import PLANNERS

    seeds, chunk = list(config.planner_seeds), checkpoint.model.chunk
    energy = as_dict(config.energy)
    entries = []
    for name in config.planners:
        if name == "zero":
            entries.append(Entry(name, "floor", Zero(), seeds[:1]))
        elif name == "random":
            entries.append(Entry(name, "floor", Random(chunk), seeds))
        elif name == "expert":
            entries.append(Entry(name, "ceiling", Expert(env), seeds[:1]))
        elif name == "oracle":
            settings = config.oracle.copy()
            problems = settings.pop("episodes")
            planner = make_planner(settings, checkpoint.action_low, checkpoint.action_high, chunk)
            controller = Oracle(env, planner, {"reduce": config.energy.reduce})
            labels = _labels(settings) | {"energy": "simulator"}
            entries.append(Entry(name, "ceiling", controller, seeds[:1], problems, timed=False, labels=labels))
        elif name in PLANNERS:
            settings = config.planner if config.planner.name == name else _settings_of(name, config)
            planner = make_planner(settings, checkpoint.action_low, checkpoint.action_high, chunk)
            controller = Imagination(checkpoint.model, planner, energy, str(device))
            labels = _labels(settings) | {"energy": f"{config.energy.distance}, {config.energy.reduce}"}
            entries.append(Entry(name, "planner", controller, seeds, labels=labels))
        else:
            choices = [*PLANNERS, "random", "zero", "expert", "oracle"]
            raise UserError(f"planners: {name} is unknown; choose from: {', '.join(choices)}")
    return entries


def measure(
    config: DictConfig, env: ArmEnv, manifest: GoalManifest, entries: list[Entry], out: Path, command: str
) -> list[Row]:
    """Runs the entries, prints the table, and writes results.json, goals, plot, film and report into `out`."""
    from ..episodes.progress import progress_bar
    from ..evaluation.bench import run_entry
    from ..evaluation.controllers import Imagination
    from ..evaluation.films import film
    from ..evaluation.plots import success_against_time
    from ..evaluation.report import write_report
    from ..evaluation.results import pool, table, write_results
    from ..evaluation.video import write_mp4
    from .doctor import machine

    manifest.save(out / "goals.safetensors")
    rows: list[Row] = []
    shown = None
    total = sum(entry.steps(manifest) for entry in entries)
    with progress_bar(f"bench {env.name}", total, "steps") as advance:
        for entry in entries:
            found, episodes = run_entry(env, manifest, config.obs, entry, advance)
            rows += found
            if shown is None and isinstance(entry.controller, Imagination):
                shown = entry, episodes
            write_results(out / "results.json", rows, manifest.sha256, command=command)
    print(table(pool(rows)))
    videos = []
    if shown and config.video_episodes:
        entry, episodes = shown
        energies = getattr(entry.controller, "first_energies", ())
        frames = film(env, episodes, range(min(config.video_episodes, len(manifest))), entry.name, energies)
        videos.append(write_mp4(out / f"{entry.name}.mp4", frames, fps=env.metadata["render_fps"]))
    plot = success_against_time(pool(rows), out / "success.png")
    facts = machine() | {"episodes": f"{manifest.budget} steps of 0.1 s", "success": success_rule(manifest)}
    write_report(
        out / "report.html",
        f"{env.name} from {config.obs}",
        rows,
        images={"Success at the end against the time one plan takes.": plot},
        videos=videos,
        facts=facts,
        command=command,
        manifest=manifest.sha256,
    )
    print(f"report: {out / 'report.html'}")
    return rows


def success_rule(manifest: GoalManifest) -> str:
    return f"within {100 * manifest.tolerance:g} cm of the goal at each of the last {manifest.hold} steps"


def config_name(config: DictConfig) -> str:
    return "quickstart" if "record_episodes" in config else "bench"


def _settings_of(name: str, config: DictConfig) -> DictConfig:
    """Another planner's own settings, with those of the chosen planner that both have and the user may have set."""
    settings = compose(config_name(config), [f"planner={name}"]).planner
    defaults = compose(config_name(config), [f"planner={config.planner.name}"]).planner
    for key, value in config.planner.items():
        if key in settings and key != "name" and value != defaults[key]:
            settings[key] = value
    return settings


def _labels(settings: DictConfig) -> dict[str, int]:
    return {key: settings[key] for key in ("samples", "iterations", "horizon") if key in settings}
