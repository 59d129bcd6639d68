"""Problems whose optimum is known exactly, to test planners on and to compare them by.

Shapes: B problems, N candidates, T steps, A action size, S state size.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .actions import ActionSpace
from .energy import Energy, TensorEnergy


@dataclass(frozen=True, eq=False)
class Problem:
    """An energy over a space, and the lowest value it has there."""

    name: str
    space: ActionSpace
    energy: Energy
    optimum: float


def double_integrator(steps: int = 20, dt: float = 0.1) -> Problem:
    """LQR: bring a point with force control from position 1 m to rest at the origin. One action."""
    a = torch.tensor([[1.0, dt], [0.0, 1.0]])
    b = torch.tensor([[0.0], [dt]])
    q, r, final = torch.diag(torch.tensor([1.0, 0.1])), 0.1 * torch.eye(1), torch.diag(torch.tensor([10.0, 1.0]))
    return _linear_quadratic("double_integrator", a, b, q, r, final, torch.tensor([1.0, 0.0]), 4.0, steps)


def stiff_double_integrator(steps: int = 20, dt: float = 0.1) -> Problem:
    """LQR: two points, one ten times as sensitive to its action as the other; condition number 4e3. Two actions."""
    a = torch.block_diag(*[torch.tensor([[1.0, dt], [0.0, 1.0]])] * 2)
    b = torch.zeros(4, 2)
    b[1, 0], b[3, 1] = dt, 10 * dt
    q = torch.diag(torch.tensor([1.0, 0.1, 1.0, 0.1]))
    r, final = torch.diag(torch.tensor([0.1, 0.1])), torch.diag(torch.tensor([10.0, 1.0, 10.0, 1.0]))
    return _linear_quadratic(
        "stiff_double_integrator", a, b, q, r, final, torch.tensor([1.0, 0.0, 1.0, 0.0]), 4.0, steps
    )


def _linear_quadratic(
    name: str, a: Tensor, b: Tensor, q: Tensor, r: Tensor, final: Tensor, start: Tensor, bound: float, steps: int
) -> Problem:
    """x' = a x + b u with cost sum_t x_t' q x_t + u_t' r u_t + x_T' final x_T, from x_0 = start, |u| <= bound."""
    states, actions = b.shape
    # All states at once, x_1 … x_T = free + lifted [u_0 … u_T-1], so that the cost is quadratic in u.
    powers = [torch.linalg.matrix_power(a, t) for t in range(steps + 1)]
    free = torch.cat([powers[t + 1] @ start for t in range(steps)])
    lifted = torch.zeros(steps, states, steps, actions)
    for t, s in itertools.product(range(steps), repeat=2):
        if s <= t:
            lifted[t, :, s] = powers[t - s] @ b
    lifted = lifted.reshape(steps * states, steps * actions).T
    weights = torch.block_diag(*[q] * (steps - 1), final)
    curvature = lifted @ weights @ lifted.T + torch.block_diag(*[r] * steps)
    slope = 2 * lifted @ weights @ free
    still = start @ q @ start + free @ weights @ free

    def cost(u: Tensor, curvature: Tensor, slope: Tensor, still: Tensor) -> Tensor:
        u = u.flatten(2)
        return ((u @ curvature.to(u) + slope.to(u)) * u).sum(-1) + still.to(u)

    space = ActionSpace(low=torch.full((actions,), -bound), high=torch.full((actions,), bound), steps=steps)
    energy = TensorEnergy(cost, (curvature, slope, still))
    return Problem(name, space, energy, riccati(a, b, q, r, final, start, steps))


def riccati(a: Tensor, b: Tensor, q: Tensor, r: Tensor, final: Tensor, start: Tensor, steps: int) -> float:
    """The lowest cost of the unbounded linear-quadratic problem, x_0' P_0 x_0, by the backward recursion

    P_t = q + a' P a - a' P b (r + b' P b)^-1 b' P a,  P = P_t+1,  P_T = final.
    """
    a, b, q, r, final, start = (matrix.double() for matrix in (a, b, q, r, final, start))
    p = final
    for _ in range(steps):
        p = q + a.T @ p @ a - a.T @ p @ b @ torch.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
    return float(start @ p @ start)


def corridor(steps: int = 20, goal: float = 0.0) -> Problem:
    """Not convex: steer sideways past three posts, each on the left or on the right, in a corridor two metres wide.

    The vehicle drives at constant speed, so that it is beside each post at a known step; y' = y + u. The energy is
    effort, 10 sum_t u_t^2 + 10 (y_T - goal)^2, and a penalty on depth within a post, steep enough to be exact.
    """
    posts = ((steps // 4, -0.6, 0.3), (steps // 2, -0.2, 0.7), (3 * steps // 4, -0.8, 0.2))
    effort, miss, penalty = 10.0, 10.0, 100.0
    when = torch.tensor([t for t, _, _ in posts]) - 1
    low, high = (torch.tensor(side) for side in zip(*[post[1:] for post in posts], strict=True))

    def cost(u: Tensor, when: Tensor, low: Tensor, high: Tensor) -> Tensor:
        y = u[..., 0].cumsum(-1)
        beside = y[..., when.to(u.device)]
        depth = torch.minimum(beside - low.to(u), high.to(u) - beside).clamp(min=0).sum(-1)
        return effort * u.square().sum((-1, -2)) + miss * (y[..., -1] - goal).square() + penalty * depth

    space = ActionSpace(low=torch.tensor([-0.25]), high=torch.tensor([0.25]), steps=steps)
    energy = TensorEnergy(cost, (when, low, high))
    return Problem("corridor", space, energy, _taut_string(posts, steps, goal, effort, miss))


def _taut_string(
    posts: tuple[tuple[int, float, float], ...], steps: int, goal: float, effort: float, miss: float
) -> float:
    """The lowest cost of passing the posts.

    Between touched edges the best path is straight and costs effort * rise^2 / run; after the last, effort and miss
    share the rise like springs in series. So the optimum touches some edges, and every choice of them can be tried.
    """
    best = float("inf")
    for choice in itertools.product((None, 0, 1), repeat=len(posts)):
        t, y, cost = 0, 0.0, 0.0
        path = [(t, y)]
        for (when, *edges), side in zip(posts, choice, strict=True):
            if side is not None:
                cost += effort * (edges[side] - y) ** 2 / (when - t)
                t, y = when, edges[side]
                path.append((t, y))
        stiffness = effort / (steps - t)
        end = (stiffness * y + miss * goal) / (stiffness + miss)
        cost += stiffness * (end - y) ** 2 + miss * (end - goal) ** 2
        path.append((steps, end))
        if all(not low + 1e-9 < _height(path, when) < high - 1e-9 for when, low, high in posts):
            best = min(best, cost)
    return best


def _height(path: list[tuple[int, float]], t: int) -> float:
    for (t0, y0), (t1, y1) in itertools.pairwise(path):
        if t <= t1:
            return y0 + (y1 - y0) * (t - t0) / (t1 - t0)
    raise ValueError(f"step {t} lies beyond the path")


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "double_integrator": double_integrator,
    "stiff_double_integrator": stiff_double_integrator,
    "corridor": corridor,
}
