"""Whether a simulation went on as it was told to, or was set back on the way.

MuJoCo answers a state that is not finite by resetting itself: the default pose returns, finite, and only a counter and
the clock tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from ..errors import SimulationError, UserError

DIVERGED = tuple(
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
)
"""What MuJoCo counts when it met NaN, infinity or a huge number, and replaced state or controls."""


@contextmanager
def unlogged() -> Iterator[None]:
    """MuJoCo's warnings are not printed, nor written to MUJOCO_LOG.TXT in the working folder; its counters tell."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _ignore(text: str) -> None: ...


class Simulating:
    """Within it env=`name` is simulated in `data`, by `seconds` where they are given; MuJoCo's warnings are unlogged.

    A class, because every step of every simulation enters it, and a generator takes five times as long.

    Raises:
        SimulationError: at the end, where the simulation diverged or its clock did not go forward by that.
    """

    def __init__(self, name: str, data: mujoco.MjData, seconds: float | None = None) -> None:
        self.name, self.data, self.seconds = name, data, seconds

    def __enter__(self) -> None:
        self._begun = self.data.time
        self.data.warning.number[:] = 0  # counts cannot be compared, for a reset zeroes them
        self._handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(_ignore)

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        mujoco.set_mju_user_warning(self._handler)
        if kind is not None:
            return
        if any(self.data.warning.number.tolist()):
            self._tell()
        seconds, now = self.seconds, self.data.time
        if seconds is not None and not abs(now - self._begun - seconds) < 1e-3 * seconds:
            raise SimulationError(
                f"env={self.name}: its clock went from {self._begun:g} s to {now:g} s in a step of {seconds:g} s: the "
                "environment resets itself, or its steps are not equally long"
            )

    def _tell(self) -> None:
        warned = self.data.warning
        kinds = [int(kind) for kind in np.flatnonzero(warned.number)]
        reasons = {kind: mujoco.mju_warningText(kind, warned[kind].lastinfo) for kind in kinds}
        for kind in DIVERGED:
            if kind in reasons:
                raise SimulationError(
                    f"env={self.name}: the simulation diverged after {self._begun:g} s: {reasons[kind]}"
                )
        for reason in reasons.values():
            warnings.warn(f"env={self.name}: {reason}", RuntimeWarning, stacklevel=4)


def refuse_sleep(name: str, model: mujoco.MjModel) -> None:
    """UserError where islands may sleep: which do is not part of a state that MuJoCo saves."""
    if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
        raise UserError(
            f"env={name}: its model lets islands sleep, and which do is lost when a state is saved; clear "
            "mujoco.mjtEnableBit.mjENBL_SLEEP in model.opt.enableflags"
        )


def diverged(counters: np.ndarray) -> np.ndarray:
    """(…,) which simulations diverged, of what a `mujoco.batch.Batch` has of their warnings, (…, kinds, 2)."""
    return np.any(counters[..., DIVERGED, 1], axis=-1)
