"""Rendering by mujoco_warp's ray-caster, on the CPU: no OpenGL, and a detailed mesh costs hardly more than a box.

Software OpenGL draws every triangle of a scene in every picture; a ray meets a few of them.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

import mujoco
import numpy as np

from ..errors import UserError
from .rendering import camera_number

DEVICE = "cpu"  # wherever it runs, so that pixels are the same everywhere
MOVES = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir", "flexvert_xpos")
"""What a picture shows of MuJoCo's data."""
LOOKS = (
    *("geom_type", "geom_dataid", "geom_matid", "geom_size", "geom_rgba", "flex_radius"),
    *("mat_rgba", "mat_texid", "mat_texuniform", "mat_texrepeat", "mat_emission", "mat_specular", "mat_shininess"),
    *("light_type", "light_active", "light_attenuation", "light_cutoff", "light_exponent"),
    *("light_ambient", "light_diffuse", "light_specular"),
    *("cam_projection", "cam_fovy", "cam_sensorsize", "cam_intrinsic"),
)
"""What it shows of the model, which a world may change while it runs."""
FIXED = ("geom_type", "geom_group", "light_type", "light_attenuation", "cam_projection")
"""What the kernels of a context are made for: where it changes, another context is made."""


class RayCaster:
    """Renders one camera of a model, by name or number, to (size, size, 3) uint8, as `Camera` does, and shows what the
    model holds now. It draws geoms and soft bodies of groups 0 to 2, without shadows, transparency, textures of soft
    bodies, sites and tendons.

    Kernels are compiled for the first picture on a machine; later processes find them.

    Raises:
        UserError: where mujoco_warp is not installed, for a camera that the model does not have, or for a model that
            mujoco_warp cannot draw.
        ValueError: for a size that is no picture's.
    """

    def __init__(self, model: mujoco.MjModel, camera: str | int, size: int) -> None:
        try:
            import warp  # pyright: ignore[reportMissingImports]

            warp.config.log_level = warp.LOG_ERROR  # that there is no GPU is nothing to warn of
            import mujoco_warp  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"obs=pixels: needs mujoco_warp ({error}); pip install 'forearm[warp]'") from None
        if size < 1:
            raise ValueError(f"size={size}: must be at least 1 pixel")
        if model.nskin:
            raise _not_drawn("skins")
        self.size = size
        self.name = f"mujoco_warp {version('mujoco-warp')} {DEVICE}"
        self._camera = camera_number(model, camera, free=False)
        self._source = model
        self._warp, self._mujoco_warp = warp, mujoco_warp
        with warp.ScopedDevice(DEVICE):
            still = _still(model)
            try:
                self._model = mujoco_warp.put_model(still)
                self._data = mujoco_warp.make_data(still)
            except (NotImplementedError, ValueError) as error:
                raise _not_drawn(str(error)) from error
            self._make_context()

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The picture of a simulation whose kinematics are up to date."""
        with self._warp.ScopedDevice(DEVICE):
            if _fixed(self._source) != self._made_for:
                self._make_context()
            for names, source, shown in ((LOOKS, self._source, self._model), (MOVES, data, self._data)):
                for name in names:
                    _copy(getattr(source, name), getattr(shown, name))
            _copy(_flex_rgba(self._source), self._context.flex_rgba)
            self._mujoco_warp.refit_bvh(self._model, self._data, self._context)
            self._mujoco_warp.render(self._model, self._data, self._context)
            packed = self._context.rgb_data.numpy()  # one word a pixel: blue, green, red, opacity
        return packed.view(np.uint8).reshape(self.size, self.size, 4)[..., 2::-1].copy()

    def close(self) -> None:
        """Nothing is held that outlives it."""

    def _make_context(self) -> None:
        self._made_for = _fixed(self._source)
        self._context: Any = self._mujoco_warp.create_render_context(
            self._source,
            cam_res=(self.size, self.size),
            render_rgb=True,
            render_depth=False,
            cam_active=[self._camera],
            use_precomputed_rays=False,  # cameras may zoom
        )


def _not_drawn(reason: str) -> UserError:
    return UserError(
        f"make_camera=RayCaster: mujoco_warp does not draw this model ({reason}); OpenGL does: make_camera=Camera"
    )


def _copy(source: np.ndarray, shown: Any) -> None:
    """Writes into a Warp array in place: on the CPU, NumPy sees its memory."""
    view = shown.numpy()
    np.copyto(view, source.reshape(view.shape))


def _still(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy that looks the same and is never stepped: mujoco_warp refuses to draw what it cannot simulate."""
    still = copy.copy(model)
    option = still.opt
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    option.noslip_iterations = option.disableflags = option.enableflags = 0
    for kind in ("actuator_trntype", "actuator_dyntype", "actuator_gaintype", "actuator_biastype", "eq_type"):
        getattr(still, kind)[:] = 0
    still.sensor_type[:] = mujoco.mjtSensor.mjSENS_CLOCK
    for plugin in ("body_plugin", "actuator_plugin", "sensor_plugin"):
        getattr(still, plugin)[:] = -1
    return still


def _fixed(model: mujoco.MjModel) -> tuple[Any, ...]:
    """All that a context holds and does not read again, but for the pixels of textures and the shapes of meshes, which
    OpenGL takes once as well."""
    head, depth = model.vis.headlight, model.vis.map
    lights = (head.active, *(light.tobytes() for light in (head.ambient, head.diffuse, head.specular)))
    return (*lights, depth.znear, depth.zfar, model.stat.extent, *(getattr(model, name).tobytes() for name in FIXED))


def _flex_rgba(model: mujoco.MjModel) -> np.ndarray:
    """Colours (nflex, 4) as MuJoCo shows them: those of materials where a soft body's own are the default's. Each is of
    one colour here, though its elements may have materials of their own: that of the first."""
    rgba = model.flex_rgba.copy()
    material = model.flex_matid
    if len(material) > model.nflex:  # since MuJoCo 4, one an element
        material = material[model.flex_elemadr]
    of_material = (material >= 0) & (rgba == (0.5, 0.5, 0.5, 1.0)).all(-1)
    rgba[of_material] = model.mat_rgba[material[of_material]]
    rgba[model.flex_group > 2, 3] = 0.0
    return rgba
