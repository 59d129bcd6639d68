"""What every renderer promises: it shows what model and simulation hold now, and says which cameras there are."""

from collections.abc import Callable, Iterator

import gymnasium
import mujoco
import numpy as np
import pytest
from forearm.envs import GymnasiumWorld, make_world
from forearm.envs.ray_casting import RayCaster
from forearm.envs.rendering import Camera, Renders
from forearm.errors import UserError

# Everything that a world may change is in sight, and mujoco_warp could not simulate it.
SCENE = """
<mujoco>
  <option solver="PGS" noslip_iterations="2"><flag autoreset="disable"/></option>
  <visual><headlight ambient="0.2 0.2 0.2" diffuse="0.3 0.3 0.3" specular="0 0 0"/></visual>
  <asset>
    <texture name="squares" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0 0 0" width="32" height="32"/>
    <texture name="stripes" type="2d" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1" width="32" height="32"/>
    <material name="tiles" texture="squares" rgba="0.9 0.9 0.9 1" texrepeat="3 3" specular="0.2" shininess="0.3"/>
    <material name="paint" rgba="0.2 0.3 0.9 1" specular="0.4" shininess="0.4"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0.2 -0.6 1.5" dir="0 0.4 -1" diffuse="0.5 0.5 0.5" specular="0.3 0.3 0.3"
           type="spot" cutoff="60" exponent="4" attenuation="0.8 0.1 0.1" castshadow="false"/>
    <geom name="floor" type="plane" size="1 1 0.1" material="tiles"/>
    <geom name="box" type="box" size="0.1 0.1 0.1" pos="-0.3 0 0.1" material="paint"/>
    <geom name="ball" type="box" size="0.1 0.1 0.1" pos="0.3 -0.2 0.1" rgba="0.8 0.6 0.1 1"/>
    <camera name="near" pos="0 -1 0.7" xyaxes="1 0 0 0 0.6 0.8"/>
    <camera name="far" pos="0 -2 0.9" xyaxes="1 0 0 0 0.5 0.9"/>
    <flexcomp name="cloth" type="grid" count="5 5 1" spacing="0.08 0.08 0.08" pos="0 0.1 0.25" dim="2" radius="0.01"
              material="paint" mass="1"><contact selfcollide="none"/><edge equality="true"/></flexcomp>
  </worldbody>
</mujoco>
"""

SKINNED = """
<mujoco>
  <worldbody><camera pos="0 0 2"/><body name="bone"><freejoint/><geom size="0.1"/></body></worldbody>
  <deformable>
    <skin vertex="0 0 0  1 0 0  0 1 0" face="0 1 2">
      <bone body="bone" bindpos="0 0 0" bindquat="1 0 0 0" vertid="0 1 2" vertweight="1 1 1"/>
    </skin>
  </deformable>
</mujoco>
"""


class Scene:
    """The scene, and a renderer of it that was made before whatever happens to it."""

    def __init__(self, renderer: Callable[[mujoco.MjModel, str | int, int], Renders]) -> None:
        self.model = mujoco.MjModel.from_xml_string(SCENE)
        self.data = mujoco.MjData(self.model)
        self.make = renderer
        self.renderer = renderer(self.model, "near", 48)

    def picture(self, renderer: Renders | None = None) -> np.ndarray:
        mujoco.mj_forward(self.model, self.data)
        return (renderer or self.renderer).render(self.data)


@pytest.fixture(params=["Camera", "RayCaster"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    if request.param == "RayCaster":
        pytest.importorskip("mujoco_warp", reason="an extra: pip install 'forearm[warp]'")
    scene = Scene({"Camera": Camera, "RayCaster": RayCaster}[request.param])
    yield scene
    scene.renderer.close()


def edits(model: mujoco.MjModel) -> dict[str, Callable[[], None]]:
    """Changes of each kind that a world may make to its model."""

    def write(name: str, value: object, part: object = ...) -> Callable[[], None]:
        return lambda: getattr(model, name).__setitem__(part, value)

    floor, box, lamp, near = (model.geom("floor").id, model.geom("box").id, model.light("lamp").id, 0)
    tiles, paint = model.material("tiles").id, model.material("paint").id
    textures = model.mat_texid[tiles]
    other = np.where(textures == model.texture("squares").id, model.texture("stripes").id, textures)

    def kinds_of_light() -> None:
        model.vis.headlight.diffuse[:] = 0.0, 0.3, 0.0
        model.light_type[lamp] = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL

    return {
        "a geom's colour": write("geom_rgba", (0, 1, 0, 1), box),
        "an invisible geom": write("geom_rgba", 0, (box, 3)),
        "a geom's material": write("geom_matid", paint, floor),
        "a geom's size": write("geom_size", 0.2, box),
        "a geom's place": write("geom_pos", (0.1, 0, 0.1), box),
        "a geom's group": write("geom_group", 4, box),
        "a material's colour": write("mat_rgba", (1, 0, 0, 1), paint),
        "a material's texture": write("mat_texid", other, tiles),
        "a texture's repetition": write("mat_texrepeat", 7, tiles),
        "emission": write("mat_emission", 0.8, tiles),
        "gloss": write("mat_specular", 1, tiles),
        "shininess": write("mat_shininess", 1, tiles),
        "a light's colour": write("light_diffuse", (1, 0, 0), lamp),
        "a light's ambience": write("light_ambient", 0.3, lamp),
        "a light's gloss": write("light_specular", 1, lamp),
        "a light that is off": write("light_active", False, lamp),
        "a light's place": write("light_pos", (-0.5, 0, 1), lamp),
        "a light's direction": write("light_dir", (0.6, 0, -0.8), lamp),
        "a light's cone": write("light_cutoff", 20, lamp),
        "a light's beam": write("light_exponent", 40, lamp),
        "a light's reach": write("light_attenuation", (1, 1, 0), lamp),
        "headlight, and a light's kind": kinds_of_light,
        "a camera's field of view": write("cam_fovy", 80, near),
        "a camera's place": write("cam_pos", (0.2, -1, 0.9), near),
        "a soft body's colour": write("flex_rgba", (0, 1, 0, 1), 0),
        "a soft body's group": write("flex_group", 4, 0),
    }


def test_what_a_world_changes_in_its_model_is_shown(scene: Scene) -> None:
    before = scene.picture()
    kept = mujoco.MjModel.from_xml_string(SCENE)
    unseen = []
    for name, edit in edits(scene.model).items():
        edit()
        changed = scene.picture()
        if np.array_equal(changed, before):
            unseen.append(name)
        for field in ("geom", "mat", "light", "cam", "flex"):
            for attribute in dir(kept):
                if attribute.startswith(f"{field}_") and isinstance(getattr(kept, attribute), np.ndarray):
                    getattr(scene.model, attribute)[:] = getattr(kept, attribute)
        scene.model.vis.headlight.diffuse[:] = kept.vis.headlight.diffuse
    assert not unseen
    np.testing.assert_array_equal(scene.picture(), before)


def test_a_renderer_shows_what_one_made_now_would(scene: Scene) -> None:
    for edit in edits(scene.model).values():
        edit()
    scene.model.geom_rgba[:, 3] = 1.0
    scene.model.geom_group[:] = scene.model.flex_group[:] = 0
    scene.model.light_active[:] = True
    for _ in range(10):
        mujoco.mj_step(scene.model, scene.data)
    fresh = scene.make(scene.model, "near", 48)
    np.testing.assert_array_equal(scene.picture(), scene.picture(fresh))
    fresh.close()


def test_what_falls_is_where_opengl_shows_it(scene: Scene) -> None:
    opengl = Camera(scene.model, "near", 48)
    middles = []
    for steps in (0, 60):  # the cloth falls by 7 cm
        for _ in range(steps):
            mujoco.mj_step(scene.model, scene.data)
        for renderer in (scene.renderer, opengl):
            picture = scene.picture(renderer)[:, 14:34].astype(int)
            cloth = (picture[..., 2] > 1.3 * picture[..., 0]) & (picture[..., 2] > 60)
            middles.append(np.argwhere(cloth).mean(0))
    before, expected_before, after, expected = middles
    assert np.abs(before - expected_before).max() < 1 and np.abs(after - expected).max() < 1
    assert after[0] > before[0] + 2, "further down in the picture"
    opengl.close()


def test_a_camera_that_does_not_exist_is_named_with_those_that_do(scene: Scene) -> None:
    free = ", -1 (the free one)" if scene.make is Camera else ""
    for camera, wrong in (
        ("front", "the model has no such camera"),
        (2, "the model has no such camera"),
        (["near", "far"], "a picture is of one camera"),
    ):
        with pytest.raises(UserError) as raised:
            scene.make(scene.model, camera, 48)  # pyright: ignore[reportArgumentType]
        assert str(raised.value) == f"camera={camera}: {wrong}; choose one of: near, far{free}"
    far = scene.make(scene.model, 1, 48)
    assert not np.array_equal(scene.picture(far), scene.picture())
    far.close()


def test_both_cameras_of_a_world_are_checked_when_it_is_made() -> None:
    def world(**cameras: object) -> GymnasiumWorld:
        def points(data: mujoco.MjData) -> np.ndarray:
            return data.body("fingertip").xpos[None]

        env = gymnasium.make("Reacher-v5")
        return GymnasiumWorld("mine", env, points=points, tolerance=0.03, budget=20, **cameras)  # pyright: ignore

    for key, camera in (("camera", "front"), ("scene_camera", "front"), ("scene_camera", 5), ("camera", ["a", "b"])):
        with pytest.raises(UserError) as raised:
            world(**{key: camera})
        assert str(raised.value).startswith(f"{key}={camera}: ") and "-1 (the free one)" in str(raised.value)


def test_what_rays_do_not_meet_is_said_with_what_draws_it() -> None:
    pytest.importorskip("mujoco_warp", reason="an extra: pip install 'forearm[warp]'")
    without = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(UserError, match="camera=-1: the model has no such camera; add one to it"):
        RayCaster(without, -1, 16)
    skinned = mujoco.MjModel.from_xml_string(SKINNED)
    with pytest.raises(UserError, match=r"does not draw this model \(skins\); OpenGL does: make_camera=Camera"):
        RayCaster(skinned, 0, 16)


@pytest.mark.filterwarnings("ignore:.*DISPLAY")  # of the viewer that OGBench imports, where there is none
def test_buttons_and_locks_of_ogbench_are_seen_and_restored() -> None:
    pytest.importorskip("ogbench", reason="OGBench is an extra: pip install 'forearm[ogbench]'")
    pytest.importorskip("mujoco_warp", reason="an extra: pip install 'forearm[warp]'")
    world = make_world("ogbench/scene", pixels=True, size=64)
    opengl = Camera(world.model, "front_pixels", 64)  # pyright: ignore[reportAttributeAccessIssue]
    world.reset(seed=0)
    state, shown = world.save_state(), []
    for buttons in ((0, 0), (1, 0), (0, 1), (1, 1)):
        state[-2:] = buttons
        world.load_state(state)
        shown.append([world.observe()["pixels"], opengl.render(world.data)])  # pyright: ignore
    for pictures in zip(*shown, strict=True):
        changed = [(picture != pictures[0]).any(-1).sum() for picture in pictures]
        assert changed[0] == 0 and min(changed[1:3]) > 20 and changed[3] > max(changed[1:3])
    world.reset(seed=1)
    world.load_state(state)
    np.testing.assert_array_equal(world.observe()["pixels"], shown[-1][0])
    opengl.close()
    world.close()
