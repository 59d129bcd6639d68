"""`forearm bench`: planners on one manifest of held-out goals; table, plot, film and report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict, compose
from ..errors import UserError
from .common import (
    at_least,
    check_energy,
    check_execution,
    command_line,
    load_checkpoint,
    make_env,
    make_planner,
    nothing_to_resume,
    run_folder,
    setup_device,
    write_config,
)

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import ArmEnv
    from ..evaluation.bench import Entry
    from ..evaluation.closed_loop import Episodes
    from ..evaluation.goals import GoalManifest
    from ..evaluation.results import Row
    from ..models.checkpoint import Checkpoint
    from ..planner import Planner

    Planned = tuple[Planner, dict[str, Any]]


def run(config: DictConfig) -> None:
    device = setup_device(config)
    checkpoint = load_checkpoint(config, device)
    env = make_env(config)
    entries = make_entries(config, env, checkpoint, device)
    manifest = load_goals(config, env)
    out = run_folder(config, "bench", f"{env.name}-{config.obs}")
    write_config(config, out)
    command = command_line("bench", config)
    with nothing_to_resume(config):
        measure(config, env, manifest, entries, out, command)


def load_goals(config: DictConfig, env: ArmEnv) -> GoalManifest:
    """The manifest that `goals` names, cut to `episodes`; or a new one of `episodes` goals.

    Raises:
        UserError: for a manifest of another environment.
    """
    from ..evaluation.goals import GoalManifest, make_goals

    at_least(config, episodes=1, seed=0)
    if not config.goals:
        return make_goals(env, config.episodes, config.seed)
    manifest = GoalManifest.load(Path(config.goals))
    if manifest.env != env.name or manifest.start.shape[1:] != env.save_state().shape:
        raise UserError(f"goals={config.goals}: were made for env={manifest.env}, not for this env={env.name}")
    return manifest if len(manifest) <= config.episodes else manifest.first(config.episodes)


WITHOUT_MODEL = ("random", "zero", "expert", "oracle")


def make_planners(config: DictConfig, low: Sequence[float], high: Sequence[float], chunk: int) -> dict[str, Planned]:
    """Those that a config lists and that plan, by name, each with its labels for the table.

    Raises:
        UserError: for a name that does not exist, or settings that a planner cannot take.
    """
    from ..planner import PLANNERS

    at_least(config, planner_seeds=0, video_episodes=0)
    check_energy(as_dict(config.energy))
    planners: dict[str, Planned] = {}
    for name in dict.fromkeys(config.planners):
        if name not in PLANNERS and name not in WITHOUT_MODEL:
            raise UserError(f"planners: {name} is unknown; choose from: {', '.join([*PLANNERS, *WITHOUT_MODEL])}")
        if name not in PLANNERS and name != "oracle":
            continue
        settings = _settings_of(name, config)
        if settings.pop("episodes", 1) < 1:
            raise UserError(f"oracle.episodes={config.oracle.episodes}: must be at least 1")
        energy = "simulator" if name == "oracle" else energy_label(config)
        labels = {key: settings[key] for key in ("samples", "iterations", "horizon")} | {"energy": energy}
        group = "oracle" if name == "oracle" else "planner"
        planners[name] = make_planner(settings, low, high, chunk, group), labels
        check_execution(config, planners[name][0])
    return planners


def energy_label(config: DictConfig) -> str:
    """The energy in a few words, such as `mse, min + 0.02 control`."""
    extra = [f" + {w:g} {term}" for term, w in config.energy.weights.items() if term != "goal" and w]
    return f"{config.energy.distance}, {config.energy.reduce}" + "".join(extra)


def make_entries(config: DictConfig, env: ArmEnv, checkpoint: Checkpoint, device: torch.device) -> list[Entry]:
    """The entries that a config lists, floors and ceilings among them. Raises UserError as `make_planners` does."""
    from ..evaluation.bench import Entry
    from ..evaluation.controllers import Expert, Imagination, Oracle, Random, Zero

    seeds, model = list(config.planner_seeds), checkpoint.model
    planners = make_planners(config, checkpoint.action_low, checkpoint.action_high, model.chunk)
    entries = []
    for name in dict.fromkeys(config.planners):
        if name == "zero":
            entries.append(Entry(name, "floor", Zero(), seeds[:1]))
        elif name == "random":
            entries.append(Entry(name, "floor", Random(model.chunk), seeds))
        elif name == "expert":
            entries.append(Entry(name, "ceiling", Expert(env), seeds[:1]))
        elif name == "oracle":
            planner, labels = planners[name]
            controller = Oracle(env, planner, {"reduce": config.energy.reduce})
            entries.append(
                Entry(name, "ceiling", controller, seeds[:1], config.oracle.episodes, timed=False, labels=labels)
            )
        else:
            planner, labels = planners[name]
            controller = Imagination(
                model, planner, as_dict(config.energy), str(device), config.precision, config.execute_steps
            )
            entries.append(Entry(name, "planner", controller, seeds, labels=labels))
    return entries


def measure(
    config: DictConfig,
    env: ArmEnv,
    manifest: GoalManifest,
    entries: list[Entry],
    out: Path,
    command: str,
    spent: Mapping[str, float] | None = None,
) -> list[Row]:
    """Runs the entries, prints the table, and writes results.json, goals, plot, film and report into `out`; `spent`
    are seconds that stages before took, to be told with them."""
    from ..episodes.progress import progress_bar
    from ..evaluation.bench import run_entry
    from ..evaluation.plots import success_against_time
    from ..evaluation.report import write_report
    from ..evaluation.results import pool, table, write_results
    from .doctor import machine

    manifest.save(out / "goals.safetensors")
    rows: list[Row] = []
    shown = None
    facts = machine() | {"episodes": f"{manifest.budget} steps of 0.1 s", "success": success_rule(manifest)}
    begun = time.perf_counter()
    total = sum(entry.steps(manifest) for entry in entries)
    with progress_bar(f"bench {env.name}", total, "steps") as advance:
        for entry in entries:
            found, episodes = run_entry(env, manifest, config.obs, entry, advance)
            rows += found
            if shown is None and entry.kind == "planner":
                shown = entry.name, episodes
            write_results(out / "results.json", rows, manifest.sha256, command=command, facts=facts)
    seconds = {**(spent or {}), "bench": time.perf_counter() - begun}
    write_results(out / "results.json", rows, manifest.sha256, command=command, facts=facts, seconds=seconds)
    print(table(pool(rows)))
    video = None
    if shown and config.video_episodes:
        name, episodes = shown
        video = write_film(out / f"{name}.mp4", env, episodes, config.video_episodes, name)
    plot = success_against_time(pool(rows), out / "success.png")
    facts["wall clock"] = ", ".join(f"{stage} {value / 60:.1f} min" for stage, value in seconds.items())
    write_report(
        out / "report.html",
        f"{env.name} from {config.obs}",
        rows,
        images={"Success at the end against the time one plan takes.": plot},
        videos=[video] if video else [],
        facts=facts,
        command=command,
        manifest=manifest.sha256,
    )
    print(f"report: {out / 'report.html'}")
    return rows


def success_rule(manifest: GoalManifest) -> str:
    return f"within {100 * manifest.tolerance:g} cm of the goal at each of the last {manifest.hold} steps"


def write_film(path: Path, env: ArmEnv, episodes: Episodes, count: int, planner: str) -> Path | None:
    """Films the first episodes; None, with a word about why, where this machine cannot render."""
    from ..envs import RenderingError
    from ..evaluation.films import film
    from ..evaluation.video import write_mp4

    count = min(count, len(episodes.manifest))
    try:
        return write_mp4(path, film(env, episodes, range(count), planner), env.metadata["render_fps"])
    except RenderingError as error:
        print(f"no film: {error}")
        return None


def _settings_of(name: str, config: DictConfig) -> dict[str, Any]:
    """A planner's own settings, with those of the chosen planner that both have and the user has set."""
    if name == "oracle":
        return as_dict(config.oracle)
    chosen = as_dict(config.planner)
    if name == chosen["name"]:
        return chosen
    own, defaults = (as_dict(compose("bench", [f"planner={planner}"]).planner) for planner in (name, chosen["name"]))
    return own | {k: v for k, v in chosen.items() if k in own and k != "name" and v != defaults[k]}
