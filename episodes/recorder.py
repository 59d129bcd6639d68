"""Records episodes: safe against Ctrl-C and SIGKILL at any instant, resumed by the same request.

Episode i is a pure function of the request's seed and i, and a file is whole or not there. So whatever interrupts a
recording, and whatever the number of workers, the finished set is the same, byte for byte.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import SimulationError
from ..folders import owned
from ..seeds import recording_seed
from ..version import __version__
from .manifest import Manifest, RecordRequest, begin, read_recording
from .progress import progress_bar
from .store import DTYPES, DataError, Origin, episode_name, leftovers, read_header, write_episode
from .workers import run


class Recordable(Protocol):
    """What the recorder needs of an environment: part of `forearm.envs.World`."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def renderer_name(self) -> str: ...
    def reset(self, *, seed: int | None = None) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]: ...
    def step(self, action: np.ndarray) -> tuple[Mapping[str, np.ndarray], Any, bool, bool, dict[str, Any]]: ...
    def save_state(self) -> np.ndarray: ...
    def close(self) -> None: ...


class Policy(Protocol):
    """Who acts; it may look into the simulator."""

    def reset(self) -> None: ...
    def act(self) -> np.ndarray: ...


MakeEnv = Callable[..., Recordable]
MakePolicy = Callable[[str, Any, np.random.Generator], Policy]


def _make_env(name: str, **config: Any) -> Recordable:
    from ..envs import make_world  # here, because reading episodes needs no simulator

    return make_world(name, **config)


def _make_policy(name: str, env: Any, rng: np.random.Generator) -> Policy:
    from ..envs import make_policy

    return make_policy(name, env, rng)


def record(
    request: RecordRequest,
    folder: Path,
    workers: int = 1,
    progress: bool = False,
    make_env: MakeEnv = _make_env,
    make_policy: MakePolicy = _make_policy,
) -> Manifest:
    """Records what is missing of a set of episodes, and the manifest last.

    `make_env(name, **config)` and `make_policy(name, env, rng)` must be importable functions, or values that can be
    sent to another process: with more than one worker they are called in spawned ones. With one, everything happens in
    this process.

    Raises DataError when the folder holds something else, FolderError when it cannot be written to or another process
    records into it, WorkerError when an episode cannot be recorded. After these, after Ctrl-C and after SIGKILL,
    recorded episodes stay, and the same call goes on with the rest.
    """
    if workers < 1:
        raise DataError(f"workers={workers}: must be at least 1")
    versions = {"forearm": __version__, "mujoco": version("mujoco"), "numpy": version("numpy")}
    with owned(folder, "run the same command again to go on"), _cleared(folder):
        begin(folder, request, versions)
        missing = [index for index in range(request.episodes) if not _recorded(folder, request, index)]
        if missing:
            _same_versions(folder, versions)
            task = partial(_recording, request, folder, versions, make_env, make_policy)
            _record_missing(task, missing, request, min(workers, len(missing)), progress)
        manifest = Manifest.of(folder, request)
        if missing or not _has_manifest(folder):
            manifest.write(folder)
        return manifest


def record_episode(
    request: RecordRequest, index: int, env: Recordable, make_policy: MakePolicy
) -> dict[str, np.ndarray]:
    """Acts for `request.length` steps, whether or not the task is solved on the way.

    Returns the columns (see store.py). Raises ValueError when an action leaves [-1, 1] or anything is not finite,
    SimulationError when the simulation diverges.
    """
    env_seed, policy_seed = np.random.SeedSequence([request.seed, index]).spawn(2)
    observation, _ = env.reset(seed=recording_seed(env_seed))
    policy = make_policy(request.policy, env, np.random.default_rng(policy_seed))
    policy.reset()
    frames, actions = [_frame(env, observation)], []
    for step in range(request.length):
        action = np.array(policy.act(), np.float32)  # what is stored is exactly what is done
        if not (np.abs(action) <= 1).all():
            raise ValueError(f"policy '{request.policy}' gave the action {action} at step {step}, outside [-1, 1]")
        try:
            observation = env.step(action)[0]
        except SimulationError as error:
            raise SimulationError(f"step {step}: {error}") from None
        frames.append(_frame(env, observation))
        actions.append(action)
    columns = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    columns["action"] = np.stack(actions)
    for name, array in columns.items():
        if not np.isfinite(array).all():
            raise ValueError(f"column '{name}' is NaN or infinite: the simulation diverged")
    return {name: array.astype(DTYPES[name], casting="same_kind", copy=False) for name, array in columns.items()}


def _frame(env: Recordable, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # Copies: an environment may reuse its buffers.
    frame = {name: np.array(observation[name]) for name in ("pixels", "proprio", "state") if name in observation}
    return {**frame, "sim": np.array(env.save_state())}


@contextmanager
def _recording(
    request: RecordRequest, folder: Path, versions: dict[str, str], make_env: MakeEnv, make_policy: MakePolicy
) -> Iterator[Callable[[int], None]]:
    env = make_env(request.env, **request.config)

    def record_one(index: int) -> None:
        columns = record_episode(request, index, env, make_policy)
        origin = Origin(
            index=index,
            env=env.name,
            env_config=dict(env.config),
            policy=request.policy,
            policy_config=request.policy_config,
            seed=request.seed,
            renderer=env.renderer_name,
            versions=versions,
        )
        write_episode(folder, origin, columns)

    try:
        yield record_one
    finally:
        env.close()


def _record_missing(
    task: Callable[..., Any], missing: list[int], request: RecordRequest, workers: int, progress: bool
) -> None:
    frames = request.length + 1
    total, done = request.episodes * frames, (request.episodes - len(missing)) * frames
    with (
        progress_bar(f"record {request.env}", total, "frames", done, progress) as advance,
        closing(run(task, missing, workers, noun="episode")) as finished,
    ):
        for _ in finished:
            advance(frames)


def _recorded(folder: Path, request: RecordRequest, index: int) -> bool:
    path = folder / episode_name(index)
    try:
        header = read_header(path)
    except DataError:
        return False  # missing or broken: recording it again gives what should have been there
    if problems := request.problems(index, header):
        raise DataError(f"{path}: {problems[0]}; nothing was overwritten. Move it away to go on")
    return True


def _has_manifest(folder: Path) -> bool:
    try:
        return bool(Manifest.read(folder))
    except DataError:
        return False


def _same_versions(folder: Path, versions: dict[str, str]) -> None:
    for name, begun in read_recording(folder)[1].items():
        if begun != versions.get(name):
            raise DataError(
                f"{folder}: was begun with {name} {begun}, installed is {versions.get(name)}, and the episodes of one "
                f"set must come from one version. Install {name}=={begun} to finish it, or record into another folder"
            )


@contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """Finds and leaves no half-written files."""
    _clear(folder)
    try:
        yield
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
