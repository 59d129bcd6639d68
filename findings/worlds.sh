#!/bin/sh
# gymnasium 1.4.0, mujoco 4.0.0: a copy of a MuJoCo environment is not a copy of its simulation.
#
# `copy.deepcopy(env)` and a pickle of Gymnasium's MuJoCo environments raise nothing, and give an environment that was
# made anew from its constructor's arguments (gymnasium.utils.EzPickle): time 0, the initial pose, and none of what was
# set in its model. A planner that tries actions on a deep copy tries them from the wrong state.
#
# Seen:
#   deepcopy: time 0.4 -> 0.0, same joints: False, gear 20.0 -> 200.0
#   pickle: time 0.4 -> 0.0, same joints: False, gear 20.0 -> 200.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gymnasium==1.4.0 mujoco==4.0.0 "imageio>=2.14.1" packaging
cd "$folder"
venv/bin/python - <<'PYTHON'
import copy
import pickle
import sys

import gymnasium
import numpy as np

env = gymnasium.make("Reacher-v5").unwrapped
env.model.actuator_gear[:, 0] = 20.0
env.reset(seed=0)
for _ in range(20):
    env.step(np.array([1.0, -1.0]))
changed = False
for name, how in (("deepcopy", copy.deepcopy), ("pickle", lambda env: pickle.loads(pickle.dumps(env)))):
    other = how(env)
    same = np.array_equal(other.data.qpos, env.data.qpos)
    gears = env.model.actuator_gear[0, 0], other.model.actuator_gear[0, 0]
    print(f"{name}: time {env.data.time:.1f} -> {other.data.time:.1f}, same joints: {same}, gear {gears[0]} -> {gears[1]}")
    changed |= bool(same) or other.data.time != 0 or gears != (20.0, 200.0)
sys.exit(changed)
PYTHON
