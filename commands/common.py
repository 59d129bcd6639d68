"""What several commands share: run folders, devices, checkpoints, environments."""

from __future__ import annotations

import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict, compose
from ..errors import UserError
from ..files import write_atomic
from ..folders import check_free, new_folder, owned

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import World
    from ..episodes.facts import WorldFacts
    from ..models.checkpoint import Checkpoint
    from ..models.world_model import WorldModel
    from ..planner import Planner

OBS = ("pixels", "state", "pixels+proprio")
"""What a model may see: parts of an observation, joined by +."""


def check_obs(obs: str) -> str:
    if obs not in OBS:
        raise UserError(f"obs={obs} is unknown; choose one of: {', '.join(OBS)}")
    return obs


def at_least(config: DictConfig, group: str = "", **least: int) -> None:
    """Makes sure that settings are not too small; of a list, each. `group` is the one that `config` is of.

    Raises:
        UserError: naming the key, its value and the smallest it may have.
    """
    for key, smallest in least.items():
        value = config[key]
        if min([value] if isinstance(value, int) else value) < smallest:
            raise UserError(f"{group}{'.' if group else ''}{key}={value}: must be at least {smallest}")


@contextmanager
def run_folder(config: DictConfig, command: str, name: str, go_on: str = "choose another folder") -> Iterator[Path]:
    """The folder a run may write to, and nobody else as long as the block runs: `out`, or a new one under runs/COMMAND.
    Nothing there is ever overwritten. `go_on` says what to do after a write has failed.

    Raises:
        FolderError: if `out` holds something, is written to, or cannot be.
    """
    if config.out:
        out = Path(config.out)
        check_free(out)  # looks before it touches
        with owned(out, go_on):
            check_free(out)
            yield out
    else:
        stamped = f"{time.strftime('%Y%m%d-%H%M%S')}-{name.replace('/', '-')}"
        with new_folder(Path("runs") / command / stamped, go_on) as out:
            yield out


@contextmanager
def nothing_to_resume(config: DictConfig) -> Iterator[None]:
    """Ctrl-C in a run that cannot be gone on with says so where `out` would be in the way of a second one."""
    try:
        yield
    except KeyboardInterrupt:
        again = "run the same command with another out=…" if config.out else "run the same command again"
        raise KeyboardInterrupt(f"to start again, {again}") from None


def write_config(config: DictConfig, out: Path) -> None:
    from omegaconf import OmegaConf

    write_atomic(out / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())


TOO_LARGE = re.compile(
    "allocate|out of memory|Storage size calculation overflowed|integer multiplication overflow|array is too big|"
    "Maximum allowed dimension",
    re.IGNORECASE,
)
"""How NumPy and torch say that something does not fit into memory."""


@contextmanager
def in_memory(config: DictConfig, *keys: str) -> Iterator[None]:
    """UserError, naming the `keys` that decide how much memory is needed, where there is not enough in the block."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError) or not (isinstance(error, MemoryError) or TOO_LARGE.search(str(error))):
            raise
        raise UserError(too_large(config, *keys)) from error


def too_large(config: DictConfig, *keys: str) -> str:
    """That there is not enough memory for what these keys say."""
    from omegaconf import OmegaConf

    told = ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)
    return f"{told}: takes more memory than there is; lower {' or '.join(keys)}"


def setup_device(config: DictConfig) -> torch.device:
    """The device to compute on, with CPU threads set.

    Raises:
        UserError: for a device that does not exist here.
    """
    import torch

    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={config.device} is unknown; choose one of: auto, cpu, cuda")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; choose cpu, and see `forearm doctor`")
    at_least(config, threads=0)
    if config.threads:
        torch.set_num_threads(config.threads)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if config.device == "auto" else config.device)


def load_checkpoints(config: DictConfig, device: torch.device) -> list[Checkpoint]:
    """Those that `checkpoint` lists, or the shipped one, as `load_checkpoint` loads them."""
    return [load_checkpoint(config, named, device) for named in config.checkpoint or [None]]


def load_checkpoint(config: DictConfig, named: str | None, device: torch.device) -> Checkpoint:
    """The checkpoint whose folder, or name among those shipped, is given, or else the one shipped for `env` and `obs`;
    made sure to be for these. `fits_world` asks about the world that they make."""
    from ..models.checkpoint import Checkpoint, shipped_name

    env, obs = config.env.name, check_obs(config.obs)
    if named:
        folder = checkpoint_folder(named)
    else:
        folder = shipped() / shipped_name(env, obs)
        if not folder.is_dir():
            there = ", ".join(sorted(path.parent.name for path in shipped().glob("*/config.json")))
            raise UserError(
                f"checkpoint=null: none is shipped for env={env} obs={obs} (shipped: {there or 'none'}); "
                f"train one and give its folder as checkpoint=…"
            )
    checkpoint = Checkpoint.load(folder, device)
    checkpoint.require(env, obs)
    if checkpoint.env == env:
        take_parameters(config, checkpoint.env_config)
    size = checkpoint.env_config.get("size")
    if "pixels" in obs and size != config.env.size:
        raise UserError(f"env.size={config.env.size}: the checkpoint was trained for env.size={size}")
    return checkpoint


def shipped() -> Path:
    """Where the checkpoints lie that come with Forearm, each in a folder of its name."""
    from .. import models

    return Path(str(files(models))) / "pretrained"


def checkpoint_folder(named: str) -> Path:
    """The checkpoint's folder, where it, that of the run which wrote it, or one that is shipped is named."""
    from ..models.checkpoint import CONFIG
    from ..training.loop import CHECKPOINT

    run = Path(named)
    inside = (run / CHECKPOINT, run / "train" / CHECKPOINT)  # of a training, of a quickstart
    known = (run, *inside) if run.exists() else (shipped() / named,)
    return next((folder for folder in known if (folder / CONFIG).is_file()), run)


def take_parameters(config: DictConfig, recorded: Mapping[str, Any]) -> None:
    """Adds to `env` the parameters of an own world that it was recorded with, where the config sets none."""
    from omegaconf import OmegaConf

    for key, value in recorded.items():
        if key not in ("pixels", "size") and key not in config.env:
            OmegaConf.update(config, f"env.{key}", value, force_add=True)


def fits_world(config: DictConfig, named: str | None, checkpoint: Checkpoint, world: World) -> None:
    """Makes sure that a checkpoint, as it was `named`, takes what a world observes; see `meet`."""
    from ..envs import action_size, observation_shapes
    from ..episodes.facts import WorldFacts
    from ..models.checkpoint import shipped_name

    shapes = observation_shapes(world) | {"action": (action_size(world),)}
    key = f"checkpoint={named or shipped_name(world.name, config.obs)}"
    meet(
        key,
        checkpoint,
        f"env={world.name}",
        shapes,
        {world.name: WorldFacts.of(world)},
        world.tracked.stop - world.tracked.start,
    )


def meet(
    key: str,
    checkpoint: Checkpoint,
    source: str,
    shapes: Mapping[str, tuple[int, ...]],
    worlds: Mapping[str, WorldFacts],
    tracked: int | None = None,
) -> None:
    """Makes sure that a checkpoint, given as `key`, takes what a source has, and says where it is of another world than
    the one it was trained in: that may be what is to be tried.

    Raises:
        CheckpointError: see `Checkpoint.require_shapes`.
    """
    from ..models.checkpoint import CheckpointError

    try:
        checkpoint.require_shapes(source, shapes, tracked)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from None
    for env, now in worlds.items():
        if (trained_in := checkpoint.world(env)).same_model(now) is False:
            print(f"note: {key}: was trained in {trained_in.seen_from(now)}", file=sys.stderr)


def make_env(config: DictConfig) -> World:
    """The environment that a config describes.

    Raises:
        UserError: for a size that cannot be rendered, or that the encoder cannot halve four times; and for a world of
            others that breaks a promise, which is looked at briefly.
    """
    from ..envs import OWN, make_world

    pixels = "pixels" in check_obs(config.obs)
    if config.env.size % 16:
        raise UserError(f"env.size={config.env.size}: must be a multiple of 16")
    settings = as_dict(config.env)
    name = settings.pop("name")
    try:
        env = make_world(name, pixels=pixels, **settings)
    except ValueError as error:
        raise UserError(f"env.{error}" if str(error).startswith("size=") else f"env={name}: {error}") from None
    if name not in OWN:
        _check_briefly(env)
    return env


def _check_briefly(env: World) -> None:
    from ..envs import check_world

    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        check_world(env, steps=4)
    for doubt in doubts:
        print(f"warning: {doubt.message}", file=sys.stderr)


def told_next(env: str, *words: str) -> str:
    """What to do next, as a line that can be pasted: Forearm with these words, by itself or, where it does not know the
    environment, in the program that does."""
    from ..envs import OWN, is_installed

    if env in OWN or is_installed(env):
        return f"next: forearm {shlex.join(words)}"
    program = sys.argv[0]
    if program.endswith(".py"):
        return f"next: python {shlex.join([program, *words])}"
    return f"next, in the program that registers env={env}: forearm.cli.main({list(words)})"


def check_transformer(key: str, width: int) -> None:
    """UserError for a width that does not divide into attention heads."""
    from ..models.predictor import HEAD

    if width < HEAD or width % HEAD:
        raise UserError(f"{key}={width}: a transformer's must be a multiple of {HEAD}")


def check_energy(settings: dict[str, Any]) -> None:
    """Makes sure that an energy group's names exist, and that its weights and its box can be.

    Raises:
        UserError: naming the key and the valid choices.
    """
    from ..evaluation.energies import METRICS, Box
    from ..planner.energy import DISTANCES, ENSEMBLES, REDUCTIONS

    names = {"distance": DISTANCES, "reduce": REDUCTIONS, "metric": METRICS, "ensemble": ENSEMBLES}
    for key, choices in names.items():
        if settings[key] not in choices:
            raise UserError(f"energy.{key}={settings[key]} is unknown; choose one of: {', '.join(choices)}")
    numbers = {key: settings[key] for key in ("time_penalty", "ensemble_k", "disagreement")}
    for key, value in {**numbers, **{f"weights.{term}": value for term, value in settings["weights"].items()}}.items():
        if not value >= 0:
            raise UserError(f"energy.{key}={value}: must not be negative")
    if not settings["clip"] > 0:
        raise UserError(f"energy.clip={settings['clip']}: must be positive, or inf for no limit")
    if settings["keep_out"] is not None:
        try:
            Box.parse(settings["keep_out"])
        except ValueError:
            raise UserError(
                f"energy.keep_out={settings['keep_out']}: must be a box LOW..HIGH in metres, such as "
                "0.4,-0.05,0..0.5,0.05,0.2"
            ) from None
    elif settings["weights"]["keep_out"]:
        raise UserError(f"energy.weights.keep_out={settings['weights']['keep_out']}: needs a box, energy.keep_out")


def check_members(members: int, settings: dict[str, Any]) -> None:
    """UserError where an energy tells members apart of which there is one."""
    for key, without in {"disagreement": 0.0, "ensemble": "mean"}.items():
        if members == 1 and settings[key] != without:
            raise UserError(
                f"energy.{key}={settings[key]}: the model has one member; `forearm train model.members=…` trains "
                f"several, or leave it {without}"
            )


def check_energy_of(model: WorldModel, settings: dict[str, Any]) -> None:
    """Makes sure that a model has what an energy compares.

    Raises:
        UserError: naming the key and what the model lacks.
    """
    check_members(model.members, settings)
    if model.readout is not None:
        return
    if settings["metric"] == "object":
        raise UserError("energy.metric=object: the checkpoint reads no positions; train one anew, or choose slow")
    if settings["weights"]["release"]:
        weight = settings["weights"]["release"]
        raise UserError(
            f"energy.weights.release={weight}: the checkpoint reads no positions; train one anew, or leave it 0"
        )


def make_planner(settings: dict[str, Any], low: Any, high: Any, chunk: int, group: str = "planner") -> Planner:
    """The planner that the settings of a config's `group` describe, over plans of `horizon` chunks.

    Raises:
        UserError: for a setting that the planner has not, or a value it cannot take.
    """
    from ..evaluation.controllers import action_space
    from ..planner import make_planner as make

    values = dict(settings)
    name, horizon = values.pop("name"), values.pop("horizon")
    for key, of in (("prior", "the candidates"), ("prior_stop", "what the prior offers")):
        if not 0 <= values.pop(key, 0.0) <= 1:
            raise UserError(f"{group}.{key}={settings[key]}: must lie in 0 … 1; it is a share of {of}")
    samples = values["samples"]
    if values.pop("hold", False) and round(settings["prior"] * samples) >= samples:
        raise UserError(f"{group}.hold=true: {group}.prior={settings['prior']} offers all of {samples} candidates")
    if horizon < 1:
        raise UserError(f"{group}.horizon={horizon}: must be at least 1 model step")
    shape = {key: values.pop(key) for key in ("knots", "spline", "noise_beta") if key in values}
    try:
        return make(name, action_space(low, high, horizon, chunk, **shape), **values)
    except ValueError as error:
        raise UserError(f"{group}.{error}") from None


def check_execution(config: DictConfig, planner: Planner) -> None:
    """Makes sure that `execute_steps` are steps of a plan, and that `precision` exists.

    Raises:
        UserError: naming the key, the value and what it may be.
    """
    from ..models.precision import rollout_precision

    rollout_precision(config.precision, "cpu")
    if not 1 <= config.execute_steps <= planner.space.steps:
        raise UserError(f"execute_steps={config.execute_steps}: must lie in 1 … {planner.space.steps}, a plan's steps")


def command_line(name: str, config: DictConfig, command: str = "") -> str:
    """The command that gives this config: what differs from the defaults of config `name`, but for where it writes.
    `command` is the command's name where it is not the config's."""
    now = as_dict(config)
    words: list[str] = []
    # Task and observation first: their presets say much of the rest.
    for stage in (("env", "obs"), [key for key, node in now.items() if isinstance(node, dict)]):
        base = as_dict(compose(name, words))
        words += [
            f"{key}={_choice(now[key])}" for key in stage if key in now and _choice(now[key]) != _choice(base[key])
        ]
    base = flat(as_dict(compose(name, words)))
    for key, value in flat(now).items():
        if key != "out" and value != base.get(key):
            words.append(f"{key}=[{','.join(map(str, value))}]" if isinstance(value, list) else f"{key}={value}")
    return " ".join(["forearm", command or name, *words])


def _choice(node: Any) -> Any:
    """The option that was chosen of a group, or a word itself."""
    return node.get("name") if isinstance(node, dict) else node


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flattened: dict[str, Any] = {}
    for key, value in config.items():
        flattened |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flattened
