"""Which worker's stream claims next: waiting streams are woken one by one, nobody polls."""

from __future__ import annotations

from collections.abc import Iterable

from easel_kit.ids import ModelKey, WorkerId
from scheduler.service.session import Session


class Dispatch:
    """The sessions of this process that may claim."""

    def __init__(self) -> None:
        """No sessions yet."""
        self._sessions: dict[WorkerId, Session] = {}

    def add(self, session: Session) -> Session | None:
        """Takes a session in; answers the older one of the same worker."""
        old = self._sessions.pop(session.worker.id, None)
        self._sessions[session.worker.id] = session
        return old

    def discard(self, session: Session) -> None:
        """Lets a session go, unless a newer one of the worker stands in its place."""
        if self._sessions.get(session.worker.id) is session:
            del self._sessions[session.worker.id]

    def get(self, worker_id: WorkerId) -> Session | None:
        """The worker's session in this process."""
        return self._sessions.get(worker_id)

    def all(self) -> list[Session]:
        """Every session."""
        return list(self._sessions.values())

    def wake(self, models: Iterable[ModelKey]) -> None:
        """A job of one of these models may be claimed: wakes the session with the most room.

        A session that was woken already asks after this moment, so it counts as woken for this
        job too; it passes the wake-up on when it fills up.
        """
        wanted = set(models)
        ready = [
            session
            for session in self._sessions.values()
            if not session.woken.is_set() and session.room and wanted.intersection(session.models)
        ]
        if ready:
            max(ready, key=lambda session: session.room).woken.set()

    def wake_all(self) -> None:
        """Wake-ups may have been missed, or the queue is there again."""
        for session in self._sessions.values():
            session.call()
