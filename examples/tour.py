"""A tour in fifteen lines: observe, encode, imagine, plan, act, and look at the energy. `python examples/tour.py`."""

import forearm

env = forearm.make_world("push")
model = forearm.load("push-pixels")
observation, info = env.reset(seed=1)
goal = env.goal_observation()
print("an embedding:", model.encode(observation).shape)
plan = model.plan(observation, goal)
print("an imagined future:", model.imagine(observation, plan.actions).shape)
print("the energy around the plan:", model.landscape(observation, goal, "landscape.png"))
for _ in range(env.budget):
    action = model.plan(observation, goal).execute[0]
    observation, reward, terminated, truncated, info = env.step(action)
print(f"the cube is {100 * info['distance']:.1f} cm from its goal")
