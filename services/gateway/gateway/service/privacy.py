"""What a person may ask by law: a copy of what the house holds on them, and its erasure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from easel_kit.clock import Clock
from easel_kit.erasure import ERASED, hash_of
from easel_kit.errors import (
    DeadlineExceeded,
    DependencyDown,
    InvalidInput,
    Overloaded,
    Unauthenticated,
)
from easel_kit.ids import ImageId, UserId
from easel_kit.log import get_logger
from gateway.domain.job import Job
from gateway.domain.library import Picture
from gateway.domain.privacy import Erasure
from gateway.ports import AccountPrivacy, Erasures, JobPrivacy, Library, Objects
from gateway.service.memory import Recent

# An erasure that another gateway has begun is seen this many seconds later at most.
_ADMITTED_FRESH_S = 5.0
_USERS_REMEMBERED = 10_000
# Of links in an export: as long as a person may take to fetch all pictures.
LINK_TTL_S = 24 * 3600
_PAGE = 100

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkedPicture:
    """A picture with a link that gives its bytes to whoever has it, for `LINK_TTL_S`."""

    picture: Picture
    link: str


class Privacy:
    """Export and erasure, and the bar against who was erased."""

    def __init__(
        self,
        *,
        erasures: Erasures,
        account: AccountPrivacy,
        jobs: JobPrivacy,
        library: Library,
        objects: Objects,
        clock: Clock,
    ) -> None:
        """Over the ports."""
        self._erasures = erasures
        self._account = account
        self._jobs = jobs
        self._library = library
        self._objects = objects
        self._clock = clock
        self._admitted: Recent[UserId, bool] = Recent(clock, size=_USERS_REMEMBERED)

    async def admit(self, user_id: UserId) -> None:
        """Lets the caller in unless they were erased.

        While the database does not answer they are let in: billing bars them as well.

        Raises:
            Unauthenticated: the user was erased, or is being erased.
        """
        barred = self._admitted.get(user_id, max_age_s=_ADMITTED_FRESH_S)
        if barred is None:
            try:
                barred = await self._erasures.is_barred(hash_of(user_id))
            except (DependencyDown, DeadlineExceeded, Overloaded) as error:
                _log.warning("bar.unchecked", reason=str(error))
                return
            self._admitted.put(user_id, barred)
        if barred:
            raise Unauthenticated(ERASED)

    async def erase(self, user_id: UserId, confirmation: str) -> Erasure:
        """Bars the user and begins the erasure, which goes on by itself. Idempotent.

        Raises:
            InvalidInput: the confirmation is not the user's id.
        """
        if confirmation != user_id:
            raise InvalidInput("confirm", "must be your user id: this cannot be undone")
        erasure = await self._erasures.request(user_id, self._clock.now())
        self._admitted.put(user_id, value=True)
        return erasure

    def account(self, user_id: UserId) -> AsyncGenerator[bytes, None]:
        """Billing's part as one JSON document (UTF-8) in parts that end anywhere.

        Raises:
            NotFound: billing keeps nothing of the user.
        """
        return self._account.export_account(user_id)

    async def jobs(self, user_id: UserId) -> AsyncGenerator[Job, None]:
        """All jobs that are kept, oldest first, those out of sight too."""
        async for jobs in self._jobs.export_jobs(user_id):
            for job in jobs:
                yield job

    async def pictures(self, user_id: UserId) -> AsyncGenerator[LinkedPicture, None]:
        """All pictures of the library, newest first."""
        before: ImageId | None = None
        while True:
            page = await self._library.page(user_id, kind=None, before=before, limit=_PAGE)
            for picture in page.pictures:
                key = picture.image.object_key
                link = await self._objects.signed_url(key, expires_s=LINK_TTL_S)
                yield LinkedPicture(picture, link)
            before = page.next_before
            if before is None:
                return
