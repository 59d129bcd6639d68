"""Facts about this machine that a measurement should come with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from .version import __version__


def machine() -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return {
        "forearm": __version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {device}",
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "mujoco", "numpy", "gymnasium")),
    }
