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

BACKENDS = {"Linux": ("egl", "osmesa", "glfw"), "Darwin": ("cgl", "glfw"), "Windows": ("wgl", "glfw")}
"""What MuJoCo can render with, by system."""

NO_GL = (
    "no OpenGL for rendering was found (MUJOCO_GL={backend}: {reason}). On Debian or Ubuntu: apt-get install "
    "libegl1 libgl1-mesa-dri (or libosmesa6). Everything state-based works without it: obs=state"
)
NO_BACKEND = (
    "MUJOCO_GL={backend}: MuJoCo renders with no such thing; set it to one of: {backends}, or leave it unset. "
    "Everything state-based works without it: obs=state"
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


_set_aside: tuple[str, str] | None = None  # a backend that the user chose and that cannot be loaded, and why


def select_backend() -> None:
    """Settles what MuJoCo renders with: what MUJOCO_GL says, or what is found on this machine. A backend that cannot be
    loaded is set aside, as MuJoCo could not be imported with it; whatever then renders says so."""
    global _set_aside
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
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
    if chosen:
        os.environ["MUJOCO_GL"] = chosen  # as MuJoCo reads it; others take it letter by letter
    try:
        import mujoco
    except Exception as error:  # whatever a backend's own import raises
        _set_aside = chosen, _reason(error)
        os.environ["MUJOCO_GL"] = "disable"
        import mujoco  # noqa: F401


def _no_rendering(reason: str) -> RenderingError:
    """What to say where a picture cannot be made, whatever was tried."""
    backend = os.environ.get("MUJOCO_GL", "")
    if _set_aside is not None:
        backend, reason = _set_aside
        known = BACKENDS.get(platform.system(), ("glfw",))
        if backend not in known:
            return RenderingError(NO_BACKEND.format(backend=backend, backends=", ".join(known)))
        reason = f"its library cannot be loaded, {reason}"
    elif backend in ("disable", "disabled", "off", "false", "0"):
        return RenderingError(
            f"rendering is switched off (MUJOCO_GL={backend}); unset it, or leave pixels out: obs=state"
        )
    return RenderingError(NO_GL.format(backend=backend, reason=reason))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def camera_number(model: mujoco.MjModel, camera: str | int, key: str = "camera", *, free: bool = True) -> int:
    """The number of a model's camera that is given by name or number; -1 is the free one.

    Raises:
        UserError: naming `key` and the valid names, for one that the model does not have, or, unless `free`, for -1.
    """
    names = [model.camera(i).name or str(i) for i in range(model.ncam)]
    if isinstance(camera, str) and camera in names:
        return names.index(camera)
    if isinstance(camera, int | np.integer) and -free <= camera < model.ncam:
        return int(camera)
    one = isinstance(camera, str | int | np.integer)
    wrong = "the model has no such camera" if one else "a picture is of one camera"
    valid = ", ".join([*names, *["-1 (the free one)"] * free])
    raise UserError(f"{key}={camera}: {wrong}; {f'choose one of: {valid}' if valid else 'add one to it'}")


class Renders(Protocol):
    """Takes pictures (size, size, 3) uint8 of a simulation; `name` is written into an episode, as pixels of two
    renderers differ."""

    size: int
    name: str

    def render(self, data: mujoco.MjData) -> np.ndarray: ...
    def close(self) -> None: ...


class Camera:
    """Renders one camera of a model, by name or number, to (size, size, 3) uint8, and shows what the model holds now;
    in the process that built it only.

    Raises:
        UserError: for a camera that the model does not have.
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
        self._camera = camera_number(model, camera)
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except Exception as error:  # each backend has its own exception types for "no display"
            raise _no_rendering(_reason(error)) from error

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
