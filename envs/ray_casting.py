"""Rendering by mujoco_warp's ray-caster, on the CPU: no OpenGL, and a detailed mesh costs hardly more than a box.

Software OpenGL draws every triangle of a scene in every picture; a ray meets a few of them.
"""

from __future__ import annotations

from importlib.metadata import version

import mujoco
import numpy as np

from ..errors import UserError

DEVICE = "cpu"  # wherever it runs, so that pixels are the same everywhere
FIELDS = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
"""What a picture shows of MuJoCo's data."""


class RayCaster:
    """Renders one camera of a model, by name or number, to (size, size, 3) uint8, as `Camera` does; geometry of groups
    0 to 2, without shadows or transparency.

    Kernels are compiled for the first picture on a machine; later processes find them.

    Raises:
        UserError: where mujoco_warp is not installed.
        ValueError: for a size that is no picture's.
        KeyError: for an unknown camera.
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
        self.size = size
        self.name = f"mujoco_warp {version('mujoco-warp')} {DEVICE}"
        self._warp, self._mujoco_warp = warp, mujoco_warp
        with warp.ScopedDevice(DEVICE):
            self._model = mujoco_warp.put_model(model)
            self._data = mujoco_warp.make_data(model)
            number = model.camera(camera).id
            self._context = mujoco_warp.create_render_context(
                model, cam_res=(size, size), render_rgb=True, render_depth=False, cam_active=[number]
            )

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The picture of a simulation whose kinematics are up to date."""
        with self._warp.ScopedDevice(DEVICE):
            for field in FIELDS:
                shown = getattr(self._data, field)
                shown.assign(getattr(data, field).reshape(shown.numpy().shape))
            self._mujoco_warp.refit_bvh(self._model, self._data, self._context)
            self._mujoco_warp.render(self._model, self._data, self._context)
            packed = self._context.rgb_data.numpy()  # one word a pixel: blue, green, red, opacity
        return packed.view(np.uint8).reshape(self.size, self.size, 4)[..., 2::-1].copy()

    def close(self) -> None:
        """Nothing is held that outlives it."""
