"""A progress bar that says what matters while waiting: how fast, and how long still."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

PARTS = 10
"""Equal parts of the work after each of which a log is told."""


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")


@contextmanager
def progress_bar(
    title: str, total: int, unit: str, done: int = 0, show: bool = True
) -> Iterator[Callable[[int], None]]:
    """Shows a bar on stderr and yields `advance(n)`; `done` of `total` units were there before.

    Where stderr is no terminal but a log, which shows a bar only once it is full, it gets a line for each of `PARTS`.
    """
    columns = TextColumn(title), BarColumn(), TextColumn("{task.percentage:3.0f} %"), _Rate(unit), TimeRemainingColumn()
    with Progress(*columns, console=Console(file=sys.stderr), disable=not show) as progress:
        bar = progress.add_task(title, total=total, completed=done)
        logs = show and not progress.console.is_terminal
        task = progress.tasks[bar]

        def advance(count: int) -> None:
            before = task.completed
            progress.advance(bar, count)
            if logs and PARTS * before // total < PARTS * task.completed // total < PARTS:
                progress.console.print(progress.get_renderable())

        yield advance
