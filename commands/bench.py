"""`forearm bench`: planners on one manifest of held-out goals; table, plot, film and report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict, compose
from ..errors import UserError
from .common import (
    TOO_LARGE,
    at_least,
    check_energy,
    check_energy_of,
    check_execution,
    command_line,
    fits_world,
    in_memory,
    load_checkpoints,
    make_env,
    make_planner,
    nothing_to_resume,
    run_folder,
    setup_device,
    too_large,
    write_config,
)

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import World
    from ..evaluation.bench import Entry
    from ..evaluation.closed_loop import Episodes
    from ..evaluation.controllers import LatentMPC
    from ..evaluation.goals import GoalManifest
    from ..evaluation.proposals import ProposalSettings
    from ..evaluation.results import Row
    from ..models.checkpoint import Checkpoint
    from ..models.prior import ActionPrior
    from ..planner import Planner


def run(config: DictConfig) -> None:
    device = setup_device(config)
    with run_folder(config, "bench", f"{config.env.name}-{config.obs}") as out, in_memory(config, *MEMORY):
        needed = config.checkpoint or not WITHOUT_MODEL.issuperset(config.planners)
        checkpoints = load_checkpoints(config, device) if needed else []
        env = make_env(config)
        for checkpoint, named in zip(checkpoints, config.checkpoint or [None], strict=False):
            fits_world(config, named, checkpoint, env)
        entries = make_entries(config, env, checkpoints, device)
        manifest = load_goals(config, env)
        write_config(config, out)
        command = command_line("bench", config)
        with nothing_to_resume(config):
            measure(config, env, manifest, checkpoints, entries, out, command)


def load_goals(config: DictConfig, env: World) -> GoalManifest:
    """The manifest that `goals` names, or that of the bench whose folder it names, cut to `episodes`; or a new one of
    `episodes` goals, from the recording that it names or of the environment's own.

    Raises:
        UserError: for a manifest or a recording of another environment.
    """
    from ..episodes import Dataset
    from ..evaluation.goals import GoalManifest, goals_ahead, make_goals

    at_least(config, episodes=1, seed=0)
    if not config.goals:
        return make_goals(env, config.episodes, config.seed)
    path = Path(config.goals)
    if path.is_dir() and not (path / GOALS).exists():
        return goals_ahead(env, Dataset.open(path), config.episodes, config.seed, config.ahead)
    manifest = GoalManifest.load(path / GOALS if path.is_dir() else path)
    manifest.require(env, config.goals)
    return manifest if len(manifest) <= config.episodes else manifest.first(config.episodes)


OWN = "own"
"""Stands for what the planner and energy groups say, which is all that a command without sweeps has."""
WITHOUT_PLANNER = ("random", "zero", "prior", "expert", "oracle")
WITHOUT_MODEL = {"random", "zero", "expert", "oracle"}
"""What needs no checkpoint."""
GOALS = "goals.safetensors"
MEMORY = ("planner.samples", "episodes")
"""What decides how much memory planning takes."""


@dataclass(frozen=True)
class Planned:
    """A planner that a config asks for, on an energy's settings, with what it takes of a learned prior and its labels
    for the table."""

    planner: Planner
    proposals: ProposalSettings
    energy: dict[str, Any]
    labels: dict[str, Any]


def make_planners(
    config: DictConfig, low: Sequence[float], high: Sequence[float], chunk: int
) -> dict[str, list[Planned]]:
    """The planners that a config lists, by name: each with each of the energies and budgets; the oracle with its own.

    Raises:
        UserError: for a name that does not exist, or settings that a planner cannot take.
    """
    from ..planner import PLANNERS

    at_least(config, planner_seeds=0, video_episodes=0)
    once("planner_seeds", list(config.planner_seeds))
    base = as_dict(config.energy)
    energies, budgets = sweep(config)
    planned: dict[str, list[Planned]] = {}
    for name in config.planners:
        if name not in PLANNERS and name not in WITHOUT_PLANNER:
            raise UserError(f"planners: {name} is unknown; choose from: {', '.join([*PLANNERS, *WITHOUT_PLANNER])}")
        if name in planned or (name not in PLANNERS and name != "oracle"):
            continue
        settings = _settings_of(name, config)
        tried: list[tuple[dict[str, Any], dict[str, Any]]] = []
        own = name == "oracle"
        if own:
            check_oracle(settings.pop("episodes"), settings.pop("reduce"))
        for energy, budget in product([base] if own else energies, [{}] if own else budgets):
            values = settings | budget
            if (energy, values) in tried:  # `own`, spelled out
                continue
            tried.append((energy, dict(values)))
            if energy != base:
                values["replan_above"] = -math.inf  # what is low under one energy is not under another
            planner = make_planner(values, low, high, chunk, "oracle" if own else "planner")
            check_execution(config, planner)
            labels = {key: values[key] for key in ("samples", "iterations", "horizon")}
            labels["energy"] = "simulator" if own else energy_label(energy)
            found = Planned(planner, make_proposal_settings(values), energy, labels)
            planned.setdefault(name, []).append(found)
    return planned


def check_oracle(episodes: int, reduce: str) -> None:
    from ..planner.energy import REDUCTIONS

    if episodes < 1:
        raise UserError(f"oracle.episodes={episodes}: must be at least 1")
    if reduce not in REDUCTIONS:
        raise UserError(f"oracle.reduce={reduce} is unknown; choose one of: {', '.join(REDUCTIONS)}")


def sweep(config: DictConfig) -> tuple[list[dict[str, Any]], list[dict[str, int]]]:
    """The energies and budgets that a config lists, as settings; `own` stands for what the groups say.

    Raises:
        UserError: for a word that is neither `own` nor of the form that belongs there.
    """
    base = as_dict(config.energy)
    energies: list[dict[str, Any]] = []
    budgets: list[dict[str, int]] = []
    for word in config.get("energies", [OWN]):
        parts = word.split("/")
        if word != OWN and len(parts) != 3:
            raise UserError(f"energies: {word} is neither own nor DISTANCE/REDUCE/METRIC, such as mse/path/slow")
        named = {} if word == OWN else dict(zip(("distance", "reduce", "metric"), parts, strict=True))
        limit = {} if word == OWN else {"clip": math.inf}  # one limit suits one distance
        energies.append(base | named | limit)
        check_energy(energies[-1])
    for word in config.get("budgets", [OWN]):
        samples, _, iterations = word.partition("x")
        if word != OWN and not (samples.isdecimal() and iterations.isdecimal()):
            raise UserError(f"budgets: {word} is neither own nor SAMPLESxITERATIONS, such as 64x3")
        budgets.append({} if word == OWN else {"samples": int(samples), "iterations": int(iterations)})
    once("energies", list(config.get("energies", [OWN])), energies)
    once("budgets", list(config.get("budgets", [OWN])), budgets)
    return energies, budgets


def once(key: str, words: Sequence[Any], meant: Sequence[Any] | None = None) -> None:
    """Makes sure that no word of a list is there twice, nor two that mean the same: the same trial twice is not two.

    Raises:
        UserError: naming the key, the list and the word.
    """
    meant = words if meant is None else meant
    again = next((word for i, word in enumerate(words) if meant[i] in meant[:i]), None)
    if again is not None:
        listed = ",".join(map(str, words))
        raise UserError(f"{key}=[{listed}]: {again} is there already; the same trial twice is not two")


def energy_label(energy: Mapping[str, Any]) -> str:
    """An energy in a few words, such as `mse, min + 0.02 control`."""
    extra = [f" + {weight:g} {term}" for term, weight in energy["weights"].items() if term != "goal" and weight]
    metric = "" if energy["metric"] == "slow" else f", {energy['metric']}"
    worse = {"mean": "", "worst": ", worst", "mean_std": f", mean + {energy['ensemble_k']:g} std"}[energy["ensemble"]]
    extra += [f" + {energy['time_penalty']:g} time penalty"] if energy["time_penalty"] else []
    extra += [f" + {energy['disagreement']:g} disagreement"] if energy["disagreement"] else []
    extra += [f", at most {energy['clip']:g}"] if energy["clip"] < math.inf else []
    return f"{energy['distance']}, {energy['reduce']}{metric}{worse}" + "".join(extra)


def make_entries(
    config: DictConfig, env: World, checkpoints: Sequence[Checkpoint], device: torch.device
) -> list[Entry]:
    """The entries that a config lists: floors and ceilings, and planners on each of the checkpoints; where there are
    none, chunks are as `forearm train` would have them. Raises UserError as `make_planners` does."""
    from ..envs import action_size
    from ..evaluation.bench import Entry
    from ..evaluation.controllers import ExpertController, HoldController, RandomController, SimulatorMPC

    once("checkpoint", list(config.get("checkpoint", [])), [checkpoint.sha256 for checkpoint in checkpoints])
    seeds, size = list(config.planner_seeds), action_size(env)
    bounds = [(c.action_low, c.action_high, c.model.chunk) for c in checkpoints]
    if not bounds:
        chunk = compose("quickstart", [f"env={env.name}", f"obs={config.obs}"]).model.chunk
        bounds = [([-1.0] * size, [1.0] * size, chunk)]
    chunk = bounds[0][-1]
    planned = [make_planners(config, *each) for each in bounds]
    models = list(
        zip(
            checkpoints,
            model_labels(checkpoints, list(config.get("checkpoint", []))),
            planned[: len(checkpoints)],
            strict=True,
        )
    )
    entries = []
    for name in dict.fromkeys(config.planners):
        if name == "zero":
            entries.append(Entry(name, "floor", HoldController(env.hold_action), seeds[:1]))
        elif name == "random":
            entries.append(Entry(name, "floor", RandomController(size, chunk), seeds))
        elif name == "expert":
            entries.append(Entry(name, "ceiling", ExpertController(env), seeds[:1]))
        elif name == "oracle":
            for one in planned[0][name]:
                oracle = SimulatorMPC(env, one.planner, {"reduce": config.oracle.reduce})
                few = config.oracle.episodes
                entries.append(Entry(name, "ceiling", oracle, seeds[:1], few, timed=False, labels=one.labels))
        else:
            for checkpoint, labels, its in models:
                entries += learned_entries(config, name, env, checkpoint, device, its.get(name, []), labels)
    return entries


def learned_entries(
    config: DictConfig,
    name: str,
    env: World,
    checkpoint: Checkpoint,
    device: torch.device,
    planned: Sequence[Planned],
    labels: dict[str, Any],
) -> Iterator[Entry]:
    """The entries of a name that need a checkpoint: its prior alone, or a planner as it is `planned`."""
    from ..evaluation.bench import Entry
    from ..evaluation.controllers import PriorController, action_space

    model, seeds, deadline = checkpoint.model, list(config.planner_seeds), make_deadline(config)
    if name == "prior":
        space = action_space(checkpoint.action_low, checkpoint.action_high, 1, model.chunk)
        prior = require_prior(checkpoint, "planners: prior")
        check_prior_alone(config, prior.architecture.segment)
        settings = as_dict(config.prior_alone)
        alone = PriorController(model, prior, space, str(device), precision=config.precision, **settings)
        yield Entry(name, "planner", alone, seeds, labels=labels)
    else:
        for one in planned:
            controller = imagination(config, env, checkpoint, device, one.planner, one.energy, one.proposals, deadline)
            label = name + " + prior" * bool(one.proposals.prior) + " + hold" * one.proposals.hold
            label += " + event-triggered" * one.planner.event_triggered
            alone = one.planner.event_triggered or deadline is not None
            yield Entry(label, "planner", controller, seeds, alone=alone, labels=one.labels | labels)


def model_labels(checkpoints: Sequence[Checkpoint], named: Sequence[str]) -> list[dict[str, str]]:
    """What tells several checkpoints apart in a table: training seeds, environments learned from, or else how they were
    `named`."""
    from ..evaluation.results import TRAINING_SEED

    if len(checkpoints) < 2:
        return [{} for _ in checkpoints]
    choices = (
        [f"{TRAINING_SEED}{checkpoint.about.get('seed')}" for checkpoint in checkpoints],
        [f"of {checkpoint.env}" for checkpoint in checkpoints],
        list(named),
    )
    names = next((names for names in choices if len(set(names)) == len(names)), choices[-1])
    return [{"model": name} for name in names]


def own_imagination(config: DictConfig, env: World, checkpoint: Checkpoint, device: torch.device) -> LatentMPC:
    """What the planner and energy groups say, on a checkpoint's model.

    Raises:
        UserError: for a setting that cannot be, or that the checkpoint lacks what it takes for.
    """
    energy = as_dict(config.energy)
    check_energy(energy)
    settings = as_dict(config.planner)
    planner = make_planner(settings, checkpoint.action_low, checkpoint.action_high, checkpoint.model.chunk)
    check_execution(config, planner)
    return imagination(config, env, checkpoint, device, planner, energy, make_proposal_settings(settings))


def imagination(
    config: DictConfig,
    env: World,
    checkpoint: Checkpoint,
    device: torch.device,
    planner: Planner,
    energy: dict[str, Any],
    proposals: ProposalSettings,
    deadline: float | None = None,
) -> LatentMPC:
    """A planner on a checkpoint's model, with what it takes of its action prior.

    Raises:
        UserError: where the checkpoint lacks what the energy compares, or a prior that is asked for.
    """
    from ..evaluation.controllers import LatentMPC

    check_energy_of(checkpoint.model, energy)
    weight = energy["weights"]["prior"]
    asked = [key for key, value in (("planner.prior", proposals.prior), ("energy.weights.prior", weight)) if value]
    learned = require_prior(checkpoint, asked[0]) if asked else None
    if learned is not None and weight:
        check_judge(learned, weight, planner)
    return LatentMPC(
        env,
        checkpoint.model,
        planner,
        energy,
        str(device),
        config.precision,
        config.execute_steps,
        deadline,
        learned,
        proposals,
        checkpoint.temporal,
    )


def make_proposal_settings(settings: Mapping[str, Any]) -> ProposalSettings:
    """What a planner group is offered beside its own samples; the oracle's, which has no such keys, nothing."""
    from ..evaluation.proposals import ProposalSettings

    return ProposalSettings(settings.get("prior", 0.0), settings.get("prior_stop", 0.0), settings.get("hold", False))


def require_prior(checkpoint: Checkpoint, key: str = "planner.prior") -> ActionPrior:
    """Its action prior. UserError, naming the key that asks for it, where it has none."""
    if checkpoint.prior is None:
        raise UserError(f"{key}: the checkpoint has no action prior; `forearm train prior.steps=…` learns one")
    return checkpoint.prior


def check_prior_alone(config: DictConfig, segment: int) -> None:
    """UserError for settings that a prior of answers of `segment` steps cannot act by."""
    steps, temperature = config.prior_alone.execute_steps, config.prior_alone.temperature
    if not 1 <= steps <= segment:
        raise UserError(f"prior_alone.execute_steps={steps}: must lie in 1 … {segment}, the steps of an answer")
    if temperature < 0:
        raise UserError(f"prior_alone.temperature={temperature}: must not be negative")


def check_judge(prior: ActionPrior, weight: float, planner: Planner) -> None:
    """UserError where a prior cannot tell how unlikely a planner's plans are."""
    steps, length = planner.space.steps, prior.architecture.segment
    if steps < length:
        raise UserError(
            f"energy.weights.prior={weight}: plans of {steps} steps are too short to judge, for the checkpoint's prior "
            f"does {length} at a time; raise planner.horizon"
        )
    if not prior.architecture.typical:
        raise UserError(
            f"energy.weights.prior={weight}: the checkpoint's prior does not know what is usual; "
            "`forearm train prior.steps=…` learns one that does"
        )


def make_deadline(config: DictConfig) -> float | None:
    """Seconds that a plan may take, or None for as many as it wants."""
    deadline = config.get("deadline", 0.0)
    if deadline < 0:
        raise UserError(f"deadline={deadline}: must not be negative; 0 is none")
    return deadline or None


def measure(
    config: DictConfig,
    env: World,
    manifest: GoalManifest,
    checkpoints: Sequence[Checkpoint],
    entries: list[Entry],
    out: Path,
    command: str,
    spent: Mapping[str, float] | None = None,
) -> list[Row]:
    """Runs the entries, prints the table, and writes results.json, goals, plot, film and report into `out`; `spent`
    are seconds that stages before took, to be told with them."""
    from ..episodes.facts import WorldFacts
    from ..episodes.progress import progress_bar
    from ..evaluation.bench import run_entry
    from ..evaluation.energies import Box
    from ..evaluation.plots import success_against_cost
    from ..evaluation.report import write_report
    from ..evaluation.results import failures, pool, remarks, table, write_results
    from .doctor import machine

    manifest.save(out / GOALS)
    rows: list[Row] = []
    shown = None
    box = Box.parse(config.energy.keep_out) if config.energy.keep_out else None
    facts = machine() | {
        "episodes": f"{manifest.budget} steps of {env.dt:g} s",
        "success": success_rule(manifest),
        "model": "; ".join(checkpoint.told() for checkpoint in checkpoints) or "none",
        "world": (world := WorldFacts.of(env)).told(),
        "trained in": "; ".join(dict.fromkeys(c.world(env.name).seen_from(world) for c in checkpoints)) or "-",
        "goals of": manifest.world.seen_from(world),
        "goals drawn": f"seed {manifest.seed}, {len(manifest)} of them",
    }
    if "prior" in config.planners:
        alone = config.prior_alone
        facts["prior"] = f"executes {alone.execute_steps} of each answer's steps, temperature {alone.temperature:g}"
    begun = time.perf_counter()
    total = sum(entry.steps(manifest) for entry in entries)
    with progress_bar(f"bench {env.name}", total, "steps") as advance:
        for entry in entries:
            found, episodes = run_entry(env, manifest, config.obs, entry, advance, box)
            rows += found
            if shown is None and entry.kind == "planner" and episodes is not None:
                shown = entry.name, episodes
            write_results(out / "results.json", rows, manifest.sha256, command=command, facts=facts)
    seconds = {**(spent or {}), "bench": time.perf_counter() - begun}
    print(table(pool(rows)))
    for line in (*remarks(pool(rows)), f"goals: seed {manifest.seed}, sha256 {manifest.sha256}"):
        print(line)
    write_results(out / "results.json", rows, manifest.sha256, command=command, facts=facts, seconds=seconds)
    video = None
    if shown and config.video_episodes:
        name, episodes = shown
        video = write_film(out / f"{name.replace(' + ', '-')}.mp4", env, episodes, config.video_episodes, name)
    measured = [row for row in rows if row.error is None]
    plot = drawn("plot", lambda: success_against_cost(pool(measured), out / "success.png"))
    facts["wall clock"] = ", ".join(f"{stage} {value / 60:.1f} min" for stage, value in seconds.items())
    write_report(
        out / "report.html",
        f"{env.name} from {config.obs}",
        rows,
        images={"Success at the end against what one plan costs.": plot} if plot else {},
        videos=[video] if video else [],
        facts=facts,
        command=command,
        manifest=manifest.sha256,
        tolerance_cm=100 * manifest.tolerance,
    )
    print(f"report: {out / 'report.html'}")
    if failed := failures(rows):
        advice = [too_large(config, *MEMORY)] if any(map(TOO_LARGE.search, failed)) else []
        raise UserError(f"{len(failed)} of {len(rows)} rows failed. " + "; ".join([*failed, *advice]))
    return rows


def success_rule(manifest: GoalManifest) -> str:
    return f"within {100 * manifest.tolerance:g} cm of the goal at each of the last {manifest.hold} steps"


def write_film(path: Path, env: World, episodes: Episodes, count: int, planner: str) -> Path | None:
    """Films the first episodes; None, with a word about why, where that fails."""
    from ..evaluation.films import film
    from ..evaluation.video import write_mp4

    shown = range(min(count, len(episodes.manifest)))
    return drawn("film", lambda: write_mp4(path, film(env, episodes, shown, planner), 1 / env.dt))


def drawn(what: str, draw: Callable[[], Path]) -> Path | None:
    """What `draw` makes of what was measured. Whatever fails there is told of, and costs nothing but the picture."""
    try:
        return draw()
    except Exception as error:
        print(f"no {what}: {' '.join(str(error).split()) or type(error).__name__}")
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
