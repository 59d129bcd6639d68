"""Offscreen rendering with whatever OpenGL this machine has: EGL, else OSMesa, on Linux; the system's own elsewhere."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import os
import platform
import sys
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    import mujoco

NO_GL = (
    "no OpenGL for rendering was found (MUJOCO_GL={backend}: {reason}). On Debian or Ubuntu: apt-get install "
    "libegl1 libgl1-mesa-dri (or libosmesa6). Everything state-based works without it: obs=state"
)


class RenderingError(UserError, RuntimeError):
    """Pixels were asked for, and this machine cannot render; the message names the packages to install."""


def _egl_devices() -> int:
    """How many devices EGL can open a display on; 0 where EGL is missing or has none."""
    name = ctypes.util.find_library("EGL")
    if name is None:
        return 0
    try:
        egl = ctypes.CDLL(name)
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        if not address:
            return 0
        query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
        count = ctypes.c_int(0)
        return count.value if query(0, None, ctypes.byref(count)) else 0
    except (OSError, AttributeError):
        return 0


def select_backend() -> str:
    """Sets MUJOCO_GL unless the user has."""
    chosen = os.environ.get("MUJOCO_GL", "")
    if not chosen and platform.system() == "Linux":
        if _egl_devices():
            chosen = "egl"
        elif ctypes.util.find_library("OSMesa"):
            chosen = "osmesa"
        if chosen:
            os.environ["MUJOCO_GL"] = chosen
            # mujoco reads it once: where it was imported before, let it read again.
            for name in ("mujoco.gl_context", "mujoco.rendering.classic.gl_context"):
                if name in sys.modules:
                    importlib.reload(sys.modules[name])
    return chosen or "default"


class Renders(Protocol):
    """Takes pictures (size, size, 3) uint8 of a simulation; `name` is written into an episode, as pixels of two
    renderers differ."""

    size: int
    name: str

    def render(self, data: mujoco.MjData) -> np.ndarray: ...
    def close(self) -> None: ...


class Camera:
    """Renders one camera of a model, by name or number, to (size, size, 3) uint8; in the process that built it only.

    Raises:
        RenderingError: when no OpenGL context can be made.
        ValueError: when the model's buffer has no room for the size.
    """

    def __init__(self, model: mujoco.MjModel, camera: str | int, size: int) -> None:
        import mujoco

        buffer = model.vis.global_
        largest = min(buffer.offwidth, buffer.offheight)
        if not 1 <= size <= largest:
            raise ValueError(f"size={size}: must be from 1 to {largest} pixels")
        self.size = size
        self.name = renderer_name()
        self._camera = camera
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception as error:  # each backend has its own exception types for "no display"
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise RenderingError(NO_GL.format(backend=os.environ.get("MUJOCO_GL", ""), reason=reason)) from error

    def render(self, data: mujoco.MjData) -> np.ndarray:
        self._renderer.update_scene(data, self._camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def renderer_name() -> str:
    """Version and backend of what a `Camera` renders with."""
    import mujoco

    backend = os.environ.get("MUJOCO_GL", "default")
    return f"mujoco {mujoco.__version__} {backend}"
