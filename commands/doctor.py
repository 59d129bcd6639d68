"""`forearm doctor`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from shutil import which
from typing import Any

from ..requirements import outdated


@dataclass(frozen=True)
class DoctorSettings:
    """Nothing can be set."""


SETTINGS = DoctorSettings


def run(given: Mapping[str, Any]) -> int:
    del given
    if wrong := outdated():
        for name, what in wrong.items():
            print(f"  {name:<10} DOES NOT WORK: {what}")
        return 2
    import torch

    from ..envs import RenderingError, make
    from ..envs.rendering import renderer_name
    from ..machine import machine
    from ..models.precision import cpu_has_bf16, cpu_has_int8

    for name, fact in machine().items():
        print(f"  {name:<10} {fact}")
    renders = True
    try:
        env = make("push")
        env.reset(seed=0)
        begun = time.perf_counter()
        for _ in range(50):
            env.observe()
        print(f"  rendering  {renderer_name()}: {(time.perf_counter() - begun) * 20:.1f} ms a 64 x 64 frame")
        env.close()
    except RenderingError as error:
        print(f"  rendering  DOES NOT WORK: {error}")
        renders = False
    bf16 = cpu_has_bf16()
    print(f"  bfloat16   {'fast' if bf16 else 'not supported by this CPU; training uses float32'}")
    print(f"  int8       {'fast: precision=int8 plans' if cpu_has_int8() else 'not supported by this CPU'}")
    compiler = os.environ.get("CXX", "g++")
    found = "found" if which(compiler) else "not found; planner.backend=inductor plans run eagerly"
    print(f"  compiler   {compiler}: {found}")
    if not torch.cuda.is_available():
        print("  CUDA       not found; everything runs on the CPU. With a GPU: install a CUDA build of torch")
    return 0 if renders else 2
