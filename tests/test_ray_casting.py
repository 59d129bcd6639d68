"""The ray-caster: shows what OpenGL shows, the same for the same state; where mujoco_warp is installed."""

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from conftest import TINY
from forearm.cli import main
from forearm.envs import check_world, make, make_world
from forearm.envs.ray_casting import RayCaster
from forearm.envs.rendering import Camera
from forearm.episodes import Dataset
from forearm.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*DISPLAY")  # of the viewer that OGBench imports, where there is none


def test_without_mujoco_warp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(UserError, match=r"obs=pixels: needs mujoco_warp .*pip install 'forearm\[warp\]'"):
        RayCaster(mujoco.MjModel.from_xml_string("<mujoco/>"), -1, 16)


def where_red(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """Row and column of the middle of what is red, and its pixels."""
    red = picture.astype(int)
    rows, columns = np.nonzero((red[..., 0] > 90) & (red[..., 0] > 1.8 * red[..., 1:].max(-1)))
    return np.array([rows.mean(), columns.mean()]), len(rows)


def test_it_shows_things_where_opengl_shows_them() -> None:
    pytest.importorskip("mujoco_warp", reason="an extra: pip install 'forearm[warp]'")
    env = make("push", pixels=False)
    rays, opengl = RayCaster(env.model, "eye", 64), Camera(env.model, "eye", 64)
    seen = []
    for seed in range(6):
        env.reset(seed=seed)
        picture, drawn = rays.render(env.data), opengl.render(env.data)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        (middle, size), (expected, area) = where_red(picture), where_red(drawn)
        assert np.abs(middle - expected).max() < 1.0 and abs(size - area) < 0.3 * area
        np.testing.assert_array_equal(picture, rays.render(env.data))
        seen.append(middle)
    assert np.ptp(seen, axis=0).min() > 5, "the cube lay in different places"
    opengl.close()
    with pytest.raises(ValueError, match="size=0"):
        RayCaster(env.model, "eye", 0)
    with pytest.raises(UserError, match=r"camera=nowhere: .* choose one of: eye, scene"):
        RayCaster(env.model, "nowhere", 16)


def test_ogbench_is_recorded_and_learned_from_in_pixels(tmp_path: Path) -> None:
    pytest.importorskip("ogbench", reason="OGBench is an extra: pip install 'forearm[ogbench]'")
    pytest.importorskip("mujoco_warp", reason="an extra: pip install 'forearm[warp]'")
    world = make_world("ogbench/cube-single", pixels=True, size=32)
    check_world(world)
    start = world.reset(seed=1)[0]
    np.testing.assert_array_equal(start["proprio"], start["state"][3:22])
    assert world.renderer_name.startswith("mujoco_warp")
    world.load_state(world.goal_state())
    np.testing.assert_array_equal(world.observe()["pixels"], world.goal_observation()["pixels"])
    assert not np.array_equal(world.observe()["pixels"], start["pixels"])

    env, data, train = "env=ogbench/cube-single", tmp_path / "data", tmp_path / "train"
    record = ["record", env, "obs=pixels", "env.size=32", "episodes=20", "length=20", "workers=1"]
    assert main([*record, f"out={data}"]) == 0
    assert Dataset.open(data).manifest.renderer.startswith("mujoco_warp")
    learn = [
        "train",
        f"data={data}",
        "obs=pixels+proprio",
        *TINY,
        "steps=3",
        "readout.steps=3",
        "prior.steps=3",
        f"out={train}",
    ]
    assert main([*learn, "threads=1"]) == 0
    small = ("planners=[shooting]", "planner_seeds=[0]", "planner.samples=4", "planner.horizon=2", "threads=1")
    bench = ["bench", env, "obs=pixels+proprio", "env.size=32", f"checkpoint={train / 'checkpoint'}", *small]
    assert main([*bench, "episodes=1", "video_episodes=0", f"out={tmp_path / 'bench'}"]) == 0
