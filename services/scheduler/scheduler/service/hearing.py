"""Passes on what this process hears of the queue's signals."""

from __future__ import annotations

from easel_kit.ids import JobId, ModelKey, WorkerId
from scheduler.domain.line import Progress
from scheduler.domain.stream import Control
from scheduler.service.dispatch import Dispatch
from scheduler.service.rebuild import Rebuilder
from scheduler.service.watch import Watches
from scheduler.service.workers import Workers


class Hearing:
    """`ports.SignalHandler`."""

    def __init__(
        self, dispatch: Dispatch, workers: Workers, watches: Watches, rebuilder: Rebuilder
    ) -> None:
        """Wake-ups go to `dispatch`, orders to `workers`, changes of jobs to `watches`.

        A new connection may lead to another store: `rebuilder` looks.
        """
        self._rebuilder = rebuilder
        self._dispatch = dispatch
        self._workers = workers
        self._watches = watches

    def on_wake(self, model_key: ModelKey) -> None:
        """See `ports.SignalHandler`."""
        self._dispatch.wake([model_key])

    def on_control(self, worker_id: WorkerId, message: Control) -> None:
        """See `ports.SignalHandler`."""
        self._workers.tell(worker_id, message)

    def on_job(self, job_id: JobId, progress: Progress | None) -> None:
        """See `ports.SignalHandler`."""
        self._watches.on_job(job_id, progress)

    def on_connected(self) -> None:
        """See `ports.SignalHandler`."""
        self._rebuilder.doubt()
        self._dispatch.wake_all()
        self._watches.look_again()
