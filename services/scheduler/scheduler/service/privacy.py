"""What the law gives a person: a copy of all jobs that are kept of them, and their erasure."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection

from easel_kit.erasure import UserHash
from easel_kit.ids import UserId
from scheduler.domain.job import Job
from scheduler.domain.privacy import Erased, Erasure
from scheduler.domain.selection import mark
from scheduler.ports import AttemptStore, Line, PrivacyStore

_PAGE = 50
"""A job says 80 kB at most (two prompts of 2,000 characters, 100 pictures), a message 8 MB."""


class Privacy:
    """Use cases; all of them may be repeated."""

    def __init__(self, store: PrivacyStore, attempts: AttemptStore, line: Line) -> None:
        """`attempts` says which jobs are open, `line` is the queue of this lane."""
        self._store = store
        self._attempts = attempts
        self._line = line

    async def export(self, user_id: UserId) -> AsyncIterator[list[Job]]:
        """All jobs of the user, oldest first, those out of sight too; none for an unknown user.

        A bounded number at a time, each as it is then. What is accepted meanwhile comes last.
        """
        after = None
        while jobs := await self._store.jobs(user_id, after=after, limit=_PAGE):
            yield jobs
            after = mark(jobs[-1])

    async def erase(self, user_hashes: Collection[UserHash]) -> Erased:
        """Removes all that is kept of the users who have no open job.

        The queue comes first: should it not answer, the users are still known for another try.

        Raises:
            DependencyDown: a store does not answer; some users may be erased already.
        """
        came_to: Counter[Erasure] = Counter()
        for user_id in await self._store.users(user_hashes):
            await self._forget(user_id)
            came_to[await self._store.erase(user_id)] += 1
        return Erased(erased=came_to[Erasure.DONE], busy=came_to[Erasure.BUSY])

    async def _forget(self, user_id: UserId) -> None:
        """The queue may not have heard yet that the last jobs have ended."""
        while held := await self._line.forget_user(user_id):
            ended = set(held) - (await self._attempts.open(held)).keys()
            if not ended:
                return
            await self._line.remove(ended)
