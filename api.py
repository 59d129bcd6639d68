"""The door for Python: record, train, evaluate and load. The command line calls the same functions.

Settings are given by keyword: values by their names; groups as their own settings (`planner=CEM(samples=128)`,
`model=ModelSettings(latent=64)`), as mappings, or by dotted name (`**{"model.latent": 64}`). `forearm COMMAND
--help=all` lists them. What is not given is as the presets for the task and the observation have it. Whatever is wrong
raises a `forearm.errors.UserError` that names the key, the value and the valid choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:  # each function imports what it needs: recording does without torch
    from torch import nn

    from .episodes import Recordings
    from .evaluation.results import Results
    from .evaluation.robot import Model


def record(env: Any = "push", *, workers: int = 1, progress: bool = True, **settings: Any) -> Recordings:
    """Records episodes into the folder `out`, by default data/ENV-OBS-POLICY, and opens them. The same call goes on
    where one stopped.

    Args:
        env: a world's name, or `EnvSettings`.
        workers: processes. With several, call it below `if __name__ == "__main__":`, as multiprocessing asks.
        progress: shows a bar.
        settings: see `RecordSettings`: `episodes`, `policy`, `obs`, `length`, `seed`, …
    """
    from .evaluation.recording import record_episodes, settings_class
    from .presets import suited

    given = {"env": env, "workers": workers, **settings}
    return record_episodes(suited(settings_class(given), given), progress)


def train(data: Any = None, **settings: Any) -> Model:
    """Learns a world model from recorded episodes, in the folder `out` or a new one under runs/train.

    Args:
        data: what `record` gave, a folder, or several of these. None for `resume=True`, which knows.
        settings: see `TrainSettings`: `obs`, `steps`, `model`, `prior`, `init`, `resume`, …
    """
    from .episodes import Recordings
    from .evaluation.robot import Model
    from .folders import owned, run_folder
    from .memory import in_memory, of
    from .models.checkpoint import ENVS
    from .presets import suited, unnested
    from .settings import build
    from .training.loop import CHECKPOINT
    from .training.run import begun, learn
    from .training.settings import TrainSettings

    for key in ("init", "frozen"):
        if isinstance(settings.get(key), Model):
            settings[key] = str(settings[key].folder)
    given = unnested({**settings} | ({} if data is None else {"data": _folders(data)}))
    if given.get("resume"):
        given = begun(given)
    if not given.get("data"):
        raise UserError("data: give the folder that `forearm record` wrote: data=PATH, or several as data=[A,B]")
    recorded = Recordings.open([Path(folder) for folder in build(TrainSettings, {"data": given["data"]}).data])
    env = recorded.envs[0] if len(recorded.envs) == 1 else None
    chosen = suited(TrainSettings, given, env)
    device = chosen.use()
    go_on = "make room, and resume=true goes on with it"
    name = f"{ENVS.join(recorded.envs)}-{chosen.obs}"
    where = owned(Path(chosen.out or ""), go_on) if chosen.resume else run_folder(chosen.out, "train", name, go_on)
    with where as out, in_memory(of(chosen, "batch", "horizon", "model.predictor_width")):
        checkpoint = learn(chosen, recorded, out, device)
    return Model(checkpoint, out / CHECKPOINT, device)


def evaluate(
    model: Model | nn.Module | str | Path | Sequence[Any] | None = None,
    env: Any = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Results:
    """Runs planners in closed loop on held-out goals, and gives a row for each, with floors.

    Args:
        model: what `train` or `load` gave, a checkpoint's folder or name, or your own `torch.nn.Module` with `encode`
            and `rollout` (`ForeignModel`); several of these; None for the one that is shipped for `env` and `obs`.
        env: a world's name, or `EnvSettings`; by default the one that the model was trained in.
        out: a folder for results, film and report; None writes nothing.
        progress: shows a bar.
        settings: see `BenchSettings`: `planner`, `energy`, `episodes`, `planners`, `planner_seeds`, `obs`, …
    """
    from torch import nn

    from .evaluation.measure import run_bench
    from .evaluation.models import as_checkpoint
    from .evaluation.robot import Model
    from .evaluation.settings import OWN, BenchSettings
    from .folders import run_folder
    from .presets import suited

    if "checkpoint" in settings:
        raise UserError(f"checkpoint={settings['checkpoint']}: give the model first: forearm.evaluate(model, …)")
    alone = isinstance(model, Model | nn.Module | str | Path)
    listed = [] if model is None else [model] if alone else list(model) if isinstance(model, Iterable) else [model]
    for each in listed:
        if not isinstance(each, Model | nn.Module | str | Path):
            raise UserError(f"model={each}: must be a Model, a torch.nn.Module, or a checkpoint's folder or name")
    models = [_model(each, settings.get("device", "auto")) for each in listed]
    first = next((each for each in models if isinstance(each, Model)), None)
    names = tuple(str(each.folder) if isinstance(each, Model) else type(each).__name__ for each in models)
    given = {"planners": (OWN, "random", "zero"), "planner_seeds": (0,), **settings, "checkpoint": names}
    if env is not None:
        given["env"] = env
    elif first is not None:
        given["env"] = first.env
    if first is not None:
        given.setdefault("obs", first.obs)
        if "size" in first.checkpoint.env_config and isinstance(given["env"], str):
            given.setdefault("env.size", first.checkpoint.env_config["size"])
    chosen = suited(BenchSettings, given)
    device = chosen.use()
    found = [as_checkpoint(each, chosen, device) if isinstance(each, nn.Module) else each.checkpoint for each in models]
    where = nullcontext(None) if out is None else run_folder(str(out), "bench", chosen.env.name)
    with where as folder:
        return run_bench(chosen, found or None, folder, lambda _: "forearm.evaluate(…)", progress)


def load(named: str | Path, device: str = "auto", **settings: Any) -> Model:
    """A checkpoint as a model to plan with: its folder, that of the training, or the name of one that is shipped.

    Args:
        settings: see `PlanningSettings`: `planner`, `energy`, `execute_steps`, `precision`, `deadline`.
    """
    from .devices import Compute
    from .evaluation.robot import Model
    from .models.checkpoint import Checkpoint, checkpoint_folder

    folder, where = checkpoint_folder(str(named)), Compute(device=str(device)).use()
    return Model(Checkpoint.load(folder, where), folder, where, **settings)


def _model(model: Any, device: str) -> Any:
    """A model to evaluate: a module that is registered under a name, or what `load` finds."""
    from .models.foreign import registered

    if isinstance(model, str) and (module := registered(model)) is not None:
        return module
    return load(model, device) if isinstance(model, str | Path) else model


def _folders(data: Any) -> Any:
    """Folders of recordings, however they are given."""
    from .episodes import Recordings

    if isinstance(data, Recordings):
        return tuple(str(part.folder) for part in data.parts)
    if isinstance(data, str | Path):
        return (str(data),)
    if not isinstance(data, Iterable):
        raise UserError(f"data={data}: must be a recording, a folder, or several")
    return tuple(folder for each in data for folder in _folders(each))
