"""Plan with a world model of one's own: a differential-drive robot is steered to a goal, round a keep-out box.

Run it with `python examples/own_model.py`. The model is ten lines of torch; a trained network would take its place.
"""

import torch
from forearm.planner import ActionSpace, Agent, ControlEnergy, Energy, KeepOut, as_energy, make_planner
from torch import Tensor

GOAL = torch.tensor([2.0, 0.0])  # metres
DT = 0.1  # seconds


def drive(state: Tensor, action: Tensor) -> Tensor:
    """The next x, y, heading (…, 3), given speed in m/s and turning rate in rad/s (…, 2)."""
    speed, turn = action.unbind(-1)
    x, y, heading = state.unbind(-1)
    return torch.stack((x + DT * speed * heading.cos(), y + DT * speed * heading.sin(), heading + DT * turn), dim=-1)


def rollout(state: Tensor, actions: Tensor) -> Tensor:
    """States (B, N, T, 3) that follow state (B, 3) under actions (B, N, T, 2)."""
    state = state[:, None].expand(-1, actions.shape[1], -1)
    states = [state := drive(state, action) for action in actions.unbind(2)]
    return torch.stack(states, dim=2)


def distance_to_goal(state: Tensor) -> float:
    return (state[0, :2] - GOAL).norm().item()


def make_energy(observation: dict[str, Tensor]) -> Energy:
    """Come close to the goal, with little effort, and never enter the box."""

    def positions(actions: Tensor) -> Tensor:
        return rollout(observation["state"], actions)[..., :2]

    goal = as_energy(lambda actions: (positions(actions) - GOAL).norm(dim=-1).mean(-1))
    box = KeepOut(positions, hard=True, low=torch.tensor([0.8, -0.4]), high=torch.tensor([1.2, 0.3]))
    return goal + 0.01 * ControlEnergy() + box


def main() -> None:
    space = ActionSpace(low=torch.tensor([0.0, -2.0]), high=torch.tensor([1.0, 2.0]), steps=30, knots=6, spline="cubic")
    agent = Agent(make_planner("icem", space, samples=256, iterations=4), make_energy)
    state = torch.zeros(1, 3)
    for step in range(60):
        (action,) = agent.act({"state": state}).unbind(1)
        state = drive(state, action)
        if step % 10 == 9 and agent.last_plan is not None:
            milliseconds = 1000 * agent.last_plan.stats.elapsed
            print(f"step {step + 1:2d}: {distance_to_goal(state):.2f} m to go, planned in {milliseconds:.0f} ms")
    assert distance_to_goal(state) < 0.1, "the robot should have arrived"


if __name__ == "__main__":
    main()
