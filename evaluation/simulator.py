"""The true simulator as an energy: what planning could reach if the model were perfect."""

from __future__ import annotations

import mujoco
import mujoco.batch
import numpy as np
import torch
from torch import Tensor

from ..envs import ArmEnv
from ..envs.arm import RAMP, SUBSTEPS
from ..envs.arm_env import STATE_SPEC
from ..envs.stepping import diverged, unlogged
from ..planner import Term
from ..planner.energy import REDUCTIONS


class SimulatorEnergy(Term):
    """Distance in metres to the goal along simulated futures, reduced over the horizon as a `LatentEnergy` does.

    A share `tip_weight` of the distance of the gripper's tip to where it is in the goal is added: without it every
    future that does not touch the object is worth the same. A future in which the simulation diverges has infinite
    energy.

    Args:
        env: whose task, arm and model are simulated.
        states, goals: simulator states (B, F) of the problems and of their goals.
        threads: for `mujoco.batch`; results do not depend on it.
    """

    def __init__(
        self,
        env: ArmEnv,
        states: np.ndarray,
        goals: np.ndarray,
        reduce: str = "min",
        final_weight: float = 0.1,
        tip_weight: float = 0.1,
        threads: int = 2,
    ) -> None:
        self.env = env
        self.states = states
        self.reduce = reduce
        self.final_weight = final_weight
        self.tip_weight = tip_weight
        self.threads = threads
        data = mujoco.MjData(env.model)
        tip = env.model.site("tip").id
        points, tips = [], []
        for state in goals:
            mujoco.mj_setState(env.model, data, state, int(STATE_SPEC))
            mujoco.mj_kinematics(env.model, data)
            points.append(env.points(data.xpos, data.site_xpos))
            tips.append(data.site_xpos[tip].copy())
        self._tip, self._points, self._tips = tip, np.stack(points), np.stack(tips)

    def __call__(self, actions: Tensor, /) -> Tensor:
        distance = torch.from_numpy(self.simulate(actions.double().cpu().numpy())).to(actions)
        energy = REDUCTIONS[self.reduce](distance, self.final_weight)
        return torch.where(distance.isfinite().all(-1), energy, torch.inf)  # 0 times infinity is NaN

    def simulate(self, actions: np.ndarray) -> np.ndarray:
        """Distances (B, N, T) in metres after each of the actions (B, N, T, A); infinite from where one diverges."""
        b, n, t, _ = actions.shape
        batch = mujoco.batch.Batch(self.env.model, b * n, self.threads)
        batch.state[:] = np.repeat(self.states, n, 0)
        control, bodies, sites = batch.bind("ctrl"), batch.bind("xpos"), batch.bind("site_xpos")
        distance = np.empty((b, n, t))
        for step in range(t):
            for k, target in enumerate(self.env.arm.apply(batch, actions[:, :, step].reshape(b * n, -1))):
                control[:] = target
                stage = mujoco.mjtStage.mjSTAGE_POS if k == RAMP - 1 else mujoco.mjtStage.mjSTAGE_NONE
                with unlogged():
                    batch.step(nstep=SUBSTEPS, stage=stage.value)
            points = self.env.points(bodies, sites).reshape(b, n, -1, 3)
            apart = np.linalg.norm(points - self._points[:, None], axis=-1).max(-1)
            reach = np.linalg.norm(sites[:, self._tip].reshape(b, n, 3) - self._tips[:, None], axis=-1)
            lost = diverged(batch.warning).reshape(b, n)  # counted for good: MuJoCo goes on from the default pose
            distance[:, :, step] = np.where(lost, np.inf, apart + self.tip_weight * reach)
        return distance
