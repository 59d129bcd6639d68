"""The arm: end-effector commands to joint targets by differential inverse kinematics.

A command is the vector (x, y, z, yaw, opening): metres in the world, radians about the vertical, metres of travel of
each finger. It lives in the simulation itself (a mocap body and the gripper's control), so saving and loading the
simulator's state saves and loads the whole controller.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import mujoco.batch
import numpy as np

JOINTS = 7
HOME = np.array([0.0, 0.25, 0.0, -2.2, 0.0, 2.45, 0.785])
"""Posture that the redundant joint is drawn to, radians."""

ACTION_SCALE = np.array([0.05, 0.05, 0.05, 0.30, 0.02])
"""What an action of 1 moves the command by in one step: metres, metres, metres, radians, metres."""

RAMP, SUBSTEPS = 10, 2
"""One environment step (0.1 s) is RAMP controls of SUBSTEPS simulator steps: a jump would hit what it touches."""

TOLERANCE = 1e-4  # metres and radians
DAMPING = 1e-5 * np.eye(6)
POSTURE_GAIN = 0.05

ACTION_NAMES = ("dx", "dy", "dz", "dyaw", "gripper")
OPEN, CLOSED = 1.0, -1.0  # of the gripper's action


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
        # Views into the scratch data: looking them up costs as much as the kinematics.
        self._qpos = self._scratch.qpos[:JOINTS]
        self._xpos = self._scratch.site_xpos[self._site]
        self._xmat = self._scratch.site_xmat[self._site].reshape(3, 3)
        self._position, self._rotation = np.empty(3), np.empty((3, 3))
        self._jacobian = np.zeros((6, model.nv))

    def __reduce__(self) -> tuple[type[Arm], tuple[mujoco.MjModel, Workspace]]:
        return Arm, (self.model, self.workspace)  # a copy's views are into scratch data of its own

    def command(self, data: mujoco.MjData | mujoco.batch.Batch) -> np.ndarray:
        """The commands (…, 5) that a simulation, or each of a batch, is following."""
        ctrl, quat = data.ctrl, data.mocap_quat.T
        command = np.empty((*ctrl.shape[:-1], 5))
        rows = command.T  # batches last, so that the same lines serve one and many
        rows[:3] = data.mocap_pos.T[:, 0]
        rows[3] = 2.0 * np.arctan2(quat[3, 0], quat[0, 0])
        rows[4] = ctrl.T[JOINTS]
        return command

    def write(self, data: mujoco.MjData | mujoco.batch.Batch, command: np.ndarray, joints: np.ndarray) -> None:
        half, quat = command.T[3] / 2, data.mocap_quat.T
        quat[:, 0] = 0.0
        quat[0, 0], quat[3, 0] = np.cos(half), np.sin(half)
        data.mocap_pos[..., 0, :] = command[..., :3]
        data.ctrl[..., :JOINTS] = joints
        data.ctrl[..., JOINTS] = command[..., 4]

    def apply(self, data: mujoco.MjData | mujoco.batch.Batch, action: np.ndarray) -> np.ndarray:
        """Takes up the commands after actions (…, 5) in [-1, 1], and gives the controls (RAMP, …, 8) that lead there
        evenly: SUBSTEPS steps of each."""
        before = data.ctrl.copy()
        command = np.clip(self.command(data) + ACTION_SCALE * action, self.workspace.low, self.workspace.high)
        solve = self.solve if command.ndim == 1 else self.solve_all
        self.write(data, command, solve(command, before[..., :JOINTS]))
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
        q, wanted = np.array(start, float), _downward(command)
        for _ in range(iterations):
            self._see(q, self._position, self._rotation, self._jacobian)
            error = _error(command, wanted, self._position, self._rotation)
            if np.abs(error).max() < TOLERANCE:
                break
            q = self._improve(q, error, self._jacobian)
        return q

    def solve_all(self, commands: np.ndarray, starts: np.ndarray, iterations: int = 10) -> np.ndarray:
        """`solve` for commands (M, 5) from starts (M, 7), bit for bit, at a fraction of the time each."""
        q, wanted, todo = np.array(starts, float), _downward(commands), np.arange(len(starts))
        seen = np.empty((len(q), 3)), np.empty((len(q), 3, 3)), np.zeros((len(q), *self._jacobian.shape))
        for _ in range(iterations):
            for i in todo:
                self._see(q[i], *(part[i] for part in seen))
            position, rotation, jacobian = (part[todo] for part in seen)
            error = _error(commands[todo], wanted[todo], position, rotation)
            off = np.abs(error).max(1) >= TOLERANCE
            todo = todo[off]
            if not todo.size:
                break
            q[todo] = self._improve(q[todo], error[off], jacobian[off])
        return q

    def _see(self, q: np.ndarray, position: np.ndarray, rotation: np.ndarray, jacobian: np.ndarray) -> None:
        """Writes where joint angles q (7,) put the tip: (3,), (3, 3), and how it moves with them: (6, V)."""
        self._qpos[:] = q
        mujoco.mj_kinematics(self.model, self._scratch)
        mujoco.mj_comPos(self.model, self._scratch)
        mujoco.mj_jacSite(self.model, self._scratch, jacobian[:3], jacobian[3:], self._site)
        position[:], rotation[:] = self._xpos, self._xmat

    def _improve(self, q: np.ndarray, error: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        """One step from joint angles (…, 7)."""
        j = jacobian[..., :JOINTS]
        jt = j.swapaxes(-1, -2)
        posture = POSTURE_GAIN * (HOME - q)
        # J⁺(error - J posture) + posture: the posture moves only what the gripper does not feel.
        residual = error[..., None] - j @ posture[..., None]
        step = (jt @ np.linalg.solve(j @ jt + DAMPING, residual))[..., 0] + posture
        return np.minimum(np.maximum(q + step, self._low), self._high)


def _downward(command: np.ndarray) -> np.ndarray:
    """Rotations (…, 3, 3) of a gripper that points down at the yaw of commands (…, 5)."""
    yaw = command.T[3]
    rotation = np.zeros((*yaw.shape, 3, 3))
    columns = rotation.T  # the entry of each row and column is now at [column, row], for one and for many
    columns[0, 0] = np.cos(yaw)
    columns[0, 1] = columns[1, 0] = np.sin(yaw)
    columns[1, 1] = -columns[0, 0]
    columns[2, 2] = -1.0
    return rotation


def _error(command: np.ndarray, wanted: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """What the tip lacks to commands (…, 6): metres, and radians about each axis where they are small."""
    error = np.empty((*command.shape[:-1], 6))
    error[..., :3] = command[..., :3] - position
    turn, rows = (wanted @ rotation.swapaxes(-1, -2)).T, error.T
    rows[3] = turn[1, 2] - turn[2, 1]
    rows[4] = turn[2, 0] - turn[0, 2]
    rows[5] = turn[0, 1] - turn[1, 0]
    rows[3:] *= 0.5
    return error
