"""The arm: end-effector commands to joint targets by differential inverse kinematics.

A command is the vector (x, y, z, yaw, opening): metres in the world, radians about the vertical, metres of travel of
each finger. It lives in the simulation itself (a mocap body and the gripper's control), so saving and loading the
simulator's state saves and loads the whole controller.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

JOINTS = 7
HOME = np.array([0.0, 0.25, 0.0, -2.2, 0.0, 2.45, 0.785])
"""Posture that the redundant joint is drawn to, radians."""

ACTION_SCALE = np.array([0.03, 0.03, 0.03, 0.30, 0.02])
"""What an action of 1 moves the command by in one step: metres, metres, metres, radians, metres."""

RAMP, SUBSTEPS = 10, 2
"""One environment step (0.1 s) is RAMP controls of SUBSTEPS simulator steps: a jump would hit what it touches."""

TOLERANCE = 1e-4  # metres and radians
DAMPING = 1e-5 * np.eye(6)
POSTURE_GAIN = 0.05

ACTION_NAMES = ("dx", "dy", "dz", "dyaw", "gripper")


def ramp(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Controls (RAMP, ...) from `before` (excluded) to `after` (included)."""
    share = np.arange(1, RAMP + 1) / RAMP
    return before + share.reshape(-1, *(1,) * np.ndim(after)) * (after - before)


@dataclass(frozen=True)
class Workspace:
    """Box that commands are clipped to: low and high of (x, y, z, yaw, opening)."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, **ranges: tuple[float, float]) -> Workspace:
        low, high = zip(*(ranges[name] for name in ("x", "y", "z", "yaw", "opening")), strict=True)
        return cls(np.array(low, float), np.array(high, float))


class Arm:
    """Kinematics of the arm in `model`; holds a scratch MjData and nothing of any simulation."""

    def __init__(self, model: mujoco.MjModel, workspace: Workspace) -> None:
        self.model = model
        self.workspace = workspace
        self._scratch = mujoco.MjData(model)
        self._site = model.site("tip").id
        self._low, self._high = model.jnt_range[:JOINTS].T
        self._jacobian = np.zeros((6, model.nv))

    def command(self, data: mujoco.MjData) -> np.ndarray:
        """The command (5,) that the simulation is following."""
        w, z = data.mocap_quat[0, 0], data.mocap_quat[0, 3]
        return np.array([*data.mocap_pos[0], 2.0 * np.arctan2(z, w), data.ctrl[JOINTS]])

    def advance(self, command: np.ndarray, joints: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next command (5,) and joint targets (7,) after an action (5,) in [-1, 1]."""
        command = np.clip(command + ACTION_SCALE * action, self.workspace.low, self.workspace.high)
        return command, self.solve(command, joints)

    def write(self, data: mujoco.MjData, command: np.ndarray, joints: np.ndarray) -> None:
        data.mocap_pos[0] = command[:3]
        data.mocap_quat[0] = np.cos(command[3] / 2), 0.0, 0.0, np.sin(command[3] / 2)
        data.ctrl[:JOINTS] = joints
        data.ctrl[JOINTS] = command[4]

    def apply(self, data: mujoco.MjData, action: np.ndarray) -> np.ndarray:
        """Takes up the next command and gives the controls (RAMP, 8) that lead to it evenly: SUBSTEPS steps of each."""
        before = data.ctrl.copy()
        self.write(data, *self.advance(self.command(data), data.ctrl[:JOINTS], action))
        return ramp(before, data.ctrl)

    def place(self, data: mujoco.MjData, command: np.ndarray) -> None:
        """Puts the arm at rest at a command, as if it had always been there."""
        command = np.clip(command, self.workspace.low, self.workspace.high)
        joints = self.solve(command, HOME, iterations=100)
        data.qpos[:JOINTS] = joints
        data.qpos[JOINTS : JOINTS + 2] = command[4]
        data.qvel[: JOINTS + 2] = 0.0
        self.write(data, command, joints)

    def solve(self, command: np.ndarray, start: np.ndarray, iterations: int = 10) -> np.ndarray:
        """Joint angles (7,) that put the downward-pointing gripper at a command, from `start` (7,), by damped least
        squares (Wampler 1986) with the redundant joint drawn to HOME in the null space; always inside the limits."""
        data, jacobian = self._scratch, self._jacobian
        cos, sin = np.cos(command[3]), np.sin(command[3])
        wanted = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
        q = np.array(start, float)
        error = np.empty(6)
        for _ in range(iterations):
            data.qpos[:JOINTS] = q
            mujoco.mj_kinematics(self.model, data)
            turn = wanted @ data.site_xmat[self._site].reshape(3, 3).T
            error[:3] = command[:3] - data.site_xpos[self._site]
            error[3:] = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
            error[3:] *= 0.5
            if np.abs(error).max() < TOLERANCE:
                break
            mujoco.mj_comPos(self.model, data)
            mujoco.mj_jacSite(self.model, data, jacobian[:3], jacobian[3:], self._site)
            j = jacobian[:, :JOINTS]
            posture = POSTURE_GAIN * (HOME - q)
            # J⁺(error - J posture) + posture: the posture moves only what the gripper does not feel.
            step = j.T @ np.linalg.solve(j @ j.T + DAMPING, error - j @ posture) + posture
            q = np.minimum(np.maximum(q + step, self._low), self._high)
        return q
