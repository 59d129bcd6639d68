"""What became of the free objects in an episode: held between the fingers, dropped.

Read off the simulator's states alone, so that any recorded or closed-loop episode can be judged afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from ..envs import ArmEnv
from ..envs.arm_env import STATE_SPEC

FINGERS = ("left_finger", "right_finger")
FALL = 0.02
"""Metres that an object comes down by itself before that is a drop: more than it settles when put down."""

SLIDE = 0.005
"""Metres in one step (0.1 s) that an object may move between the fingers while still being held."""


class Handled(NamedTuple):
    """What became of the free objects, O of them in order, in states (T, F) of one episode.

    Attributes:
        held: (T, O) bool. An object is while both fingers touch it; and after that, clear of everything but the
            gripper, for as long as one finger touches it and it moves with the tip, since contacts flicker in a fast
            hand.
        carried: (T, O) bool, held and clear of everything but the gripper.
        height: (T, O) of its centre, in metres.
    """

    held: np.ndarray
    carried: np.ndarray
    height: np.ndarray


def drops(env: ArmEnv, states: np.ndarray) -> np.ndarray:
    """How often each free object was dropped in states (T, F) of one episode, in order: (O,) int.

    A drop is an object that was carried, clear of everything but the gripper, and then came down by more than `FALL`
    from where it was last held without being held. So one that topples from the stack it was put on is dropped as
    well, and one that is put down is not. It can be dropped again only after it has been carried again.
    """
    held, carried, height = handled(env, states)
    counts = np.zeros(held.shape[1], int)
    for i in range(held.shape[1]):
        lifted, last = False, 0.0
        for t in range(len(held)):
            if held[t, i]:
                lifted, last = lifted or carried[t, i], height[t, i]
            elif lifted and height[t, i] < last - FALL:
                counts[i] += 1
                lifted = False
    return counts


def handled(env: ArmEnv, states: np.ndarray) -> Handled:
    """What became of the objects in states (T, F) of one episode."""
    model, data = env.model, mujoco.MjData(env.model)
    objects = [model.body(name).id for name in env.task.objects]
    fingers = {model.body(name).id for name in FINGERS}
    gripper = {model.body("hand").id, *fingers}
    tip = model.site("tip").id
    held = np.zeros((len(states), len(objects)), bool)
    carried, height = held.copy(), np.empty(held.shape)
    before = np.full((len(objects), 3), np.inf)
    for t, state in enumerate(states):
        mujoco.mj_setState(model, data, state, int(STATE_SPEC))
        mujoco.mj_fwdPosition(model, data)
        pairs = model.geom_bodyid[data.contact.geom]
        for i, body in enumerate(objects):
            touching = set(pairs[(pairs == body).any(1)].ravel()) - {body}
            clear = touching <= gripper
            offset = data.xpos[body] - data.site_xpos[tip]
            still = t > 0 and held[t - 1, i] and np.linalg.norm(offset - before[i]) < SLIDE
            held[t, i] = fingers <= touching or (still and clear and bool(fingers & touching))
            carried[t, i] = held[t, i] and clear
            height[t, i] = data.xpos[body, 2]
            before[i] = offset
    return Handled(held, carried, height)
