"""What a run shows and spends: one progress bar a stage, and the CPU-time budget behind it."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_EVERY_S = 20.0
"""Without a terminal a stage prints a line this often, in seconds of wall time."""

_WARM_UP_SHARE = 0.02
_FLOOR_SHARE = 0.01


class CpuBudget:
    """Counts CPU seconds of this process against a limit, from its construction on.

    CPU time makes a run's outcome independent of what else the machine does.
    """

    def __init__(self, limit_s: float, spent_before_s: float = 0.0) -> None:
        self._limit_s = limit_s
        self._start_s = time.process_time() - spent_before_s

    @property
    def spent_s(self) -> float:
        """CPU seconds used so far, those before this object included."""
        return time.process_time() - self._start_s

    @property
    def left_s(self) -> float:
        """CPU seconds that remain; negative once the budget is overdrawn."""
        return self._limit_s - self.spent_s

    @property
    def share(self) -> float:
        """The spent share of the budget, 0 to 1."""
        return min(self.spent_s / self._limit_s, 1.0)


def cosine_rate(peak: float, share: float) -> float:
    """A learning rate at a share (0 to 1) of the run: short linear rise, then half a cosine."""
    if share < _WARM_UP_SHARE:
        return peak * share / _WARM_UP_SHARE
    angle = math.pi * (share - _WARM_UP_SHARE) / (1 - _WARM_UP_SHARE)
    return peak * (_FLOOR_SHARE + (1 - _FLOOR_SHARE) * 0.5 * (1 + math.cos(angle)))


class Bar:
    """The progress bar of one stage."""

    def __init__(self, console: Console, progress: Progress, task: TaskID) -> None:
        self._console = console
        self._progress = progress
        self._task = task
        self._printed_s = time.monotonic()

    def show(self, share: float, detail: str) -> None:
        """Moves the bar to a share of 0 to 1 and shows the detail; prints a line now and then."""
        self._progress.update(self._task, completed=share, detail=detail)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now_s
            name = self._progress.tasks[self._task].description
            self._console.print(f"{name}: {share:.0%}, {detail}", highlight=False)


class Display:
    """Prints the stages of a run to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Prints one line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """Opens the bar of a stage; it is full when the block ends without an error."""
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=1.0, detail="")
            yield Bar(self._console, progress, task)
            progress.update(task, completed=1.0)
