"""The closed loop: observe, plan, execute the first steps, shift, repeat."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .base import Plan, Planner, PlanState, Proposal, Status
from .energy import Energy

Observation = dict[str, Tensor]


class Agent:
    """Plans for B problems at once, under a receding horizon.

    Args:
        planner: what plans.
        make_energy: observation to energy, once a plan; this is where observation and goal are encoded.
        batch: problems B.
        seeds: one a problem, or the first of B consecutive ones.
        execute_steps: environment steps K' executed of each plan; by default one chunk, K.
        deadline: seconds each plan may take. One that comes late is a miss: the rest of the previous plan is executed
            in its place, as it would have to be on a robot. (The first plan of an episode has no such stand-in.)
        make_proposals: observation to proposals, once a plan.
        clock: seconds, from any origin.

    Attributes:
        state: the `PlanState` of the next plan.
        last_plan: the last plan, with its status and statistics.
        misses: plans that came late since the last reset; all problems share one plan.
        plan_seconds: duration of each `act` since the last reset, encoding included, until the device is done.
    """

    def __init__(
        self,
        planner: Planner,
        make_energy: Callable[[Observation], Energy],
        batch: int = 1,
        seeds: int | Sequence[int] = 0,
        *,
        execute_steps: int | None = None,
        deadline: float | None = None,
        make_proposals: Callable[[Observation], Sequence[Proposal]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.planner = planner
        self.make_energy = make_energy
        self.make_proposals = make_proposals
        self.batch = batch
        self.execute_steps = execute_steps or planner.space.chunk
        if not 1 <= self.execute_steps <= planner.space.steps:
            raise ValueError(f"execute_steps={execute_steps} must lie in 1 … steps={planner.space.steps}")
        self.deadline = deadline
        self.clock = clock
        self.reset(seeds)

    def reset(self, seeds: int | Sequence[int] = 0) -> None:
        """Begin an episode."""
        self.state: PlanState = self.planner.init(self.batch, seeds)
        self.last_plan: Plan | None = None
        self.misses = 0
        self.plan_seconds: list[float] = []
        # What follows if no plan comes in time, (B, T, A), and the action executed last, (B, A).
        self._rest: Tensor | None = None
        self._previous: Tensor | None = None

    @torch.no_grad()
    def act(self, observation: Observation) -> Tensor:
        """The next actions (B, K', A) to execute, all of them."""
        start = self.clock()
        energy = self.make_energy(observation)
        proposals = self.make_proposals(observation) if self.make_proposals else ()
        deadline = None if self.deadline is None else self.deadline - (self.clock() - start)
        plan = self.planner.plan(
            energy,
            self.state,
            deadline=deadline,
            clock=self.clock,
            previous_action=self._previous,
            proposals=proposals,
        )
        self.plan_seconds.append(self.planner.finished(self.clock) - start)
        self.last_plan = plan
        late = plan.timing is Status.LATE
        self.misses += late
        actions = plan.actions
        if late and self._rest is not None:
            actions = self.planner.space.limit(self._rest, self._previous)
        self.state = self.planner.shift(plan.state, self.execute_steps)
        executed, rest = actions[:, : self.execute_steps], plan.actions[:, self.execute_steps :]
        self._rest = torch.cat((rest, plan.actions[:, -1:].expand(-1, self.execute_steps, -1)), dim=1)
        self._previous = executed[:, -1]
        return executed

    def tensors(self) -> dict[str, Tensor]:
        """All that the next `act` depends on, as plain tensors, to be saved in mid-episode."""
        saved = self.state.tensors()
        if self._rest is not None and self._previous is not None:
            saved |= {"rest": self._rest, "previous": self._previous}
        return saved

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` saved."""
        self.state = PlanState.from_tensors(saved)
        self._rest, self._previous = saved.get("rest"), saved.get("previous")
