"""Records episodes: safe against Ctrl-C and SIGKILL at any instant, resumed by the same request.

Episode i is a pure function of the request's seed and i, and a file is whole or not there. So whatever interrupts a
recording, and whatever the number of workers, the finished set is the same, byte for byte.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import SimulationError, UserError
from ..folders import owned
from ..seeds import recording_seed
from ..version import __version__
from .facts import WorldFacts
from .manifest import Begun, Manifest, RecordRequest, begun_before, write_recording
from .progress import progress_bar
from .store import (
    DTYPES,
    DataError,
    Header,
    Origin,
    checksum,
    content_problems,
    episode_name,
    leftovers,
    read_columns,
    read_header,
    write_episode,
)
from .workers import WorkerError, run


class Recordable(Protocol):
    """What the recorder needs of an environment: part of `forearm.envs.World`. What else of a world it has is told with
    the episodes."""

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


class Acts(Protocol):
    """Who acts; it may look into the simulator."""

    def reset(self) -> None: ...
    def act(self) -> np.ndarray: ...


MakeEnv = Callable[..., Recordable]
MakePolicy = Callable[[str, Any, np.random.Generator], Acts]


def _make_env(name: str, **config: Any) -> Recordable:
    from ..envs import make_world  # here, because reading episodes needs no simulator

    return make_world(name, **config)


def _make_policy(name: str, env: Any, rng: np.random.Generator) -> Acts:
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
    this process, where one environment is made in any case: what it tells of itself must be what the recording was
    begun with, and an episode that is there already is made again and compared.

    Raises DataError when the folder holds something else or the world is another now, FolderError when it cannot be
    written to or another process records into it, WorkerError when an episode cannot be recorded. After these, after
    Ctrl-C and after SIGKILL, recorded episodes stay, and the same call goes on with the rest.
    """
    if workers < 1:
        raise DataError(f"workers={workers}: must be at least 1")
    with owned(folder, "run the same command again to go on"), _cleared(folder):
        begun = begun_before(folder, request)
        headers = {index: _recorded(folder, request, index) for index in range(request.episodes)}
        missing = [index for index, header in headers.items() if header is None]
        if missing or begun is None:
            recorded = {index: header for index, header in headers.items() if header is not None}
            begun = _begin(folder, request, begun, recorded, make_env, make_policy)
            task = partial(_recording, folder, begun, make_env, make_policy)
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
    folder: Path, begun: Begun, make_env: MakeEnv, make_policy: MakePolicy
) -> Iterator[Callable[[int], None]]:
    request = begun.request
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
            versions=begun.versions,
            world=begun.world,
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


def _recorded(folder: Path, request: RecordRequest, index: int) -> Header | None:
    path = folder / episode_name(index)
    try:
        header = read_header(path)
    except DataError:
        return None  # missing or broken: recording it again gives what should have been there
    if problems := request.problems(index, header):
        raise DataError(f"{path}: {problems[0]}; nothing was overwritten. Move it away to go on")
    try:
        return None if any(content_problems(read_columns(path, header.columns), header.checksum)) else header
    except DataError:
        return None


def _has_manifest(folder: Path) -> bool:
    try:
        return bool(Manifest.read(folder))
    except DataError:
        return False


def _begin(
    folder: Path,
    request: RecordRequest,
    before: Begun | None,
    recorded: Mapping[int, Header],
    make_env: MakeEnv,
    make_policy: MakePolicy,
) -> Begun:
    """Writes what is about to be recorded; or makes sure that everything is as it was `before`, when some episodes were
    `recorded`."""
    versions = {"forearm": __version__, "mujoco": version("mujoco"), "numpy": version("numpy")}
    try:
        env = make_env(request.env, **request.config)
    except UserError:
        raise
    except Exception as error:
        raise WorkerError(f"no episode could be started: {type(error).__name__}: {error}") from error
    try:
        now = Begun(request, versions, env.renderer_name, WorldFacts.of(env))
        if before is None:
            write_recording(folder, now)
            return now
        _same_versions(folder, {**before.versions, **before.world.packages}, {**now.world.packages, **versions})
        _same_world(folder, before.world, now.world)
        for index, header in list(recorded.items())[:1]:
            _same_renderer(folder, before.renderer or header.origin.renderer, now.renderer)
            _same_episode(folder, index, header, partial(record_episode, request, env=env, make_policy=make_policy))
        return before
    finally:
        env.close()


def _same_versions(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, begun in before.items():
        if begun != now.get(name, begun):
            raise DataError(
                f"{folder}: was begun with {name} {begun}, installed is {now[name]}, and the episodes of one "
                f"set must come from one version. Install {name}=={begun} to finish it, or record into another folder"
            )


def _same_world(folder: Path, before: WorldFacts, now: WorldFacts) -> None:
    for key, (begun, is_now) in before.differences(now).items():
        raise DataError(
            f"{folder}: was begun in a world with {key} {begun}, which is {is_now} now. The episodes of one set "
            "must come from one world: make it as it was to finish it, or record into another folder"
        )


def _same_renderer(folder: Path, before: str, now: str) -> None:
    if before.lower() == now.lower():
        return
    (*same, backend), (*other, _) = before.split(" "), now.split(" ")
    advice = f"Set MUJOCO_GL={backend.lower()}" if same == other and same[:1] == ["mujoco"] else "Go back to that"
    raise DataError(
        f"{folder}: was begun with the renderer {before}, and here it is {now}, whose pixels differ. {advice} to "
        "finish it, or record into another folder"
    )


def _same_episode(folder: Path, index: int, header: Header, make: Callable[[int], dict[str, np.ndarray]]) -> None:
    """Makes an episode again: what decides how it goes is more than can be told of a world."""
    ((_, again),) = run(partial(nullcontext, make), [index], workers=1, noun="episode")
    if checksum(again) == header.checksum:
        return
    path = folder / episode_name(index)
    there = read_columns(path, header.columns)
    names = sorted(there.keys() | again.keys())
    differ = [name for name in names if not _equal(there.get(name), again.get(name))] or ["checksum"]
    raise DataError(
        f"{path}: made again, it is another episode ({', '.join(differ)} differ): the world, or who acts in it, is not "
        "what it was. Nothing was overwritten; record into another folder"
    )


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


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
